"""The emoji of the embedded packs: who drew what, and what it is called.

A pack is a JSON file under xz. `meta.json.xz` lists the emoji with their
texts; `ARTIST.json.xz` holds one artist's drawings as SVG bodies. Sources and
licences: packs/ATTRIBUTION.md.
"""

import collections
import dataclasses
import functools
import json
import lzma
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from unifluid_jax.utils.errors import UserError

PACKS = pathlib.Path(__file__).parent / 'packs'

PACK_OF_ARTIST = {
  'noto': 'noto',
  'fluent': 'fluent-emoji-flat',
  'twemoji': 'twemoji',
  'openmoji': 'openmoji',
}
"""The artist's name, as prompts spell it, and the file of the drawings."""

ARTISTS = tuple(PACK_OF_ARTIST)

OPTIONAL = 'openmoji'
"""The artist whose pack is optional (share-alike licence), not in the wheel."""

BUNDLED = tuple(artist for artist in ARTISTS if artist != OPTIONAL)

TONES = ('light', 'medium-light', 'medium', 'medium-dark', 'dark')
"""Skin tones, in the order of Unicode's modifiers (Fitzpatrick 1-2 to 6)."""


_ALTERNATIVE = re.compile(r'(?!.*[a-z]\d)[a-z0-9].{2,}')
"""Alternative names that are words: neither '+1' nor 'v' nor 'umbrella2'."""


class Icon(NamedTuple):
  """A drawing: its view box, and the SVG elements inside."""

  left: float
  top: float
  width: float
  height: float
  body: str


@dataclasses.dataclass(frozen=True)
class Emoji:
  """One emoji. All texts are lower-case ASCII.

  Attributes:
    hex: Code points, joined by '-', without variation selectors.
    base: `hex` of the same emoji without a skin tone. A concept is a base.
    concept: Name of the concept.
    tone: Skin tone, one of TONES; 'light and dark' and the like where two
      people differ; '' for none.
    alternative_names: Other names of the concept that no other concept has.
    tags: Related words, possibly shared with other concepts.
    group: One of nine categories, e.g. 'animals and nature'.
    subgroup: One of a hundred kinds, e.g. 'mammals'.
    artists: Who drew it, in the order of ARTISTS, whether or not their packs
      are there.
  """

  hex: str
  base: str
  concept: str
  tone: str
  alternative_names: tuple[str, ...]
  tags: tuple[str, ...]
  group: str
  subgroup: str
  artists: tuple[str, ...]

  @property
  def name(self) -> str:
    """The canonical name: the concept, and its skin tone if any."""
    return self.with_tone(self.concept)

  def with_tone(self, name: str) -> str:
    """A name of the concept, followed by this emoji's skin tone."""
    return f'{name}, {self.tone} skin tone' if self.tone else name


@dataclasses.dataclass(frozen=True)
class Catalog:
  """All emoji and drawings.

  Attributes:
    emojis: Those that at least one artist drew, by hex, in Unicode's order.
    icons: The drawings, by artist and hex.
  """

  emojis: Mapping[str, Emoji]
  icons: Mapping[str, Mapping[str, Icon]]

  def artists_of(self, hex: str) -> tuple[str, ...]:
    """The artists whose drawings of this emoji are there, as in ARTISTS."""
    return tuple(a for a, icons in self.icons.items() if hex in icons)

  @functools.cached_property
  def families(self) -> Mapping[str, tuple[Emoji, ...]]:
    """The emoji of each concept by base: the untoned one, then the toned."""
    families = collections.defaultdict(list)
    for emoji in self.emojis.values():
      families[emoji.base].append(emoji)
    return {base: tuple(family) for base, family in families.items()}


@functools.cache
def load_catalog() -> Catalog:
  """Reads the packs, once a process.

  Without the file of the optional pack the catalog has the other artists.

  Raises:
    UserError: A pack is missing or is not readable.
  """
  icons = {
    artist: _read_icons(pack)
    for artist, pack in PACK_OF_ARTIST.items()
    if artist != OPTIONAL or (PACKS / f'{pack}.json.xz').exists()
  }
  drawn = set().union(*icons.values())
  records = [r for r in _read_pack('meta') if r['hex'] in drawn]
  names = {r['hex']: _ascii(r['name']) for r in records}
  alternatives = _alternative_names(records)
  return Catalog(
    {
      r['hex']: _parse_emoji(r, names[r['base']], alternatives[r['base']])
      for r in records
    },
    icons,
  )


def check_artists(artists: Iterable[str]) -> None:
  """Rejects an artist whose drawings are not there.

  Raises:
    UserError: Lists the known artists, or where to get the pack.
  """
  known = load_catalog().icons
  for artist in artists:
    if artist == OPTIONAL and artist not in known:
      file = f'{PACK_OF_ARTIST[artist]}.json.xz'
      raise UserError(
        f'the drawings of {artist!r} are an optional pack; copy {file} from '
        f'unifluid_jax/data/emoji/packs of the repository to {PACKS}, or '
        f'choose among {", ".join(known)}'
      )
    if artist not in known:
      raise UserError(
        f'unknown emoji artist {artist!r}; choose among {", ".join(known)}'
      )


def _read_pack(name: str) -> Any:
  path = PACKS / f'{name}.json.xz'
  try:
    return json.loads(lzma.decompress(path.read_bytes()))
  except (OSError, lzma.LZMAError, ValueError) as error:
    raise UserError(
      f'The emoji pack {path} cannot be read ({error}). Reinstall unifluid_jax.'
    ) from error


def _read_icons(pack: str) -> dict[str, Icon]:
  icons = _read_pack(pack)['icons']
  return {hex: Icon(*icon) for hex, icon in icons.items()}


def _ascii(text: str) -> str:
  """Lower-case ASCII: accents dropped, '&' and ': ' spelled out."""
  text = text.lower().replace('\u2019', "'")
  text = text.replace(' & ', ' and ').replace(': ', ', ')
  text = unicodedata.normalize('NFKD', text)
  return text.encode('ascii', 'ignore').decode('ascii')


def _alternative_names(
  records: list[dict[str, Any]],
) -> dict[str, tuple[str, ...]]:
  """Alternative names by base, without those that mean several concepts."""
  bases = [r for r in records if r['tone'] is None]
  names = {r['base']: _ascii(r['name']) for r in bases}
  candidates = {
    r['base']: dict.fromkeys(
      name for name in map(_ascii, r['alt']) if _ALTERNATIVE.match(name)
    )
    for r in bases
  }
  uses = collections.Counter(names.values())
  uses.update(name for names in candidates.values() for name in names)
  return {
    base: tuple(name for name in candidates[base] if uses[name] == 1)
    for base in names
  }


def _parse_emoji(
  record: dict[str, Any], concept: str, alternative_names: tuple[str, ...]
) -> Emoji:
  tone = record['tone']
  tones = [tone] if isinstance(tone, int) else (tone or [])
  return Emoji(
    hex=record['hex'],
    base=record['base'],
    concept=concept,
    tone=' and '.join(TONES[tone - 1] for tone in tones),
    alternative_names=alternative_names,
    tags=tuple(filter(None, map(_ascii, record['tags']))),
    group=_ascii(record['group_text']),
    subgroup=_ascii(record['subgroup_text']),
    artists=tuple(record['artists']),
  )
