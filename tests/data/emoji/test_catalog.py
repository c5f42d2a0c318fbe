"""The catalog against the counts of its sources, and its texts."""

import collections
import dataclasses
import json
import lzma

import pytest

from unifluid_jax.data.emoji import catalog as catalog_lib
from unifluid_jax.data.emoji.catalog import (
  ARTISTS,
  TONES,
  check_artists,
  load_catalog,
)
from unifluid_jax.data.emoji.colors import color_families
from unifluid_jax.data.emoji.concepts import (
  DRAWN_ALIKE,
  QUICKSTART,
  concepts_of,
)
from unifluid_jax.utils.errors import UserError

# Artist -> untoned, toned, of these with two different tones.
COUNTS = {
  'noto': (1652, 2030, 380),
  'fluent': (1594, 1545, 0),
  'twemoji': (1914, 2030, 380),
  'openmoji': (1914, 2030, 380),
}

NOTO_GROUPS = {
  'smileys and emotion': 171,
  'people and body': 388,
  'animals and nature': 160,
  'food and drink': 131,
  'travel and places': 219,
  'activities': 85,
  'objects': 266,
  'symbols': 224,
  'flags': 8,
}


@pytest.mark.parametrize('artist', ARTISTS)
def test_counts_of_an_artist(artist):
  catalog = load_catalog()
  drawn = [catalog.emojis[hex] for hex in catalog.icons[artist]]
  untoned = sum(emoji.hex == emoji.base for emoji in drawn)
  mixed = sum(' and ' in emoji.tone for emoji in drawn)
  assert (untoned, len(drawn) - untoned, mixed) == COUNTS[artist]


def test_total_and_groups():
  catalog = load_catalog()
  assert sum(map(len, catalog.icons.values())) == 14_709
  groups = collections.Counter(
    catalog.emojis[hex].group
    for hex in catalog.icons['noto']
    if catalog.emojis[hex].tone == ''
  )
  assert groups == NOTO_GROUPS
  in_all = [f for f in catalog.families if catalog.artists_of(f) == ARTISTS]
  assert len(in_all) == 1594


def test_texts_are_lower_case_ascii_and_names_unique():
  emojis = load_catalog().emojis.values()
  for emoji in emojis:
    texts = (
      *(emoji.name, emoji.concept, emoji.group, emoji.subgroup),
      *(*emoji.alternative_names, *emoji.tags),
    )
    for text in texts:
      assert text.isascii(), text
      assert text == text.lower().strip(), text
      assert text, emoji
  assert len({emoji.name for emoji in emojis}) == len(emojis)


def test_alternative_names_mean_one_concept():
  owners = collections.defaultdict(set)
  for emoji in load_catalog().emojis.values():
    for name in (emoji.concept, *emoji.alternative_names):
      owners[name].add(emoji.base)
  assert all(len(bases) == 1 for bases in owners.values())


def test_a_family_starts_untoned_and_shares_its_concept():
  for base, family in load_catalog().families.items():
    assert (family[0].hex, family[0].tone) == (base, '')
    assert len({emoji.concept for emoji in family}) == 1
    assert len({emoji.tone for emoji in family}) == len(family)


def test_tone_follows_the_modifier():
  modifiers = dict(zip(TONES, range(0x1F3FB, 0x1F400), strict=True))
  for emoji in load_catalog().emojis.values():
    if emoji.tone in TONES:
      assert f'{modifiers[emoji.tone]:x}' in emoji.hex.split('-')
      assert emoji.name == f'{emoji.concept}, {emoji.tone} skin tone'


def test_concepts_that_are_drawn_alike():
  concepts = concepts_of('drawn_alike')
  catalog = load_catalog()
  assert sorted(c.concept for c in concepts) == sorted(DRAWN_ALIKE)
  for concept in concepts:
    for emoji in catalog.families[concept.base]:
      assert catalog.artists_of(emoji.hex) == ARTISTS
  toned = [c for c in concepts if len(catalog.families[c.base]) == 6]
  assert len(toned) == 10
  for thing in 'heart', 'circle':
    family = color_families()[thing].values()
    assert sum(emoji in concepts for emoji in family) == 6


def test_quickstart():
  concepts = concepts_of('quickstart')
  assert sorted(c.concept for c in concepts) == sorted(QUICKSTART)
  assert {*concepts} < {*concepts_of('drawn_alike')}
  assert len(concepts) == 66
  assert len({c.group for c in concepts}) == 8


def test_concept_sets():
  assert len(concepts_of('animals_food')) == 291
  assert len(concepts_of('all')) == 1914
  untoned = concepts_of('untoned')
  families = load_catalog().families
  assert all(len(families[c.base]) == 1 for c in untoned)
  assert 'flags' not in {c.group for c in untoned}
  with pytest.raises(UserError, match=r"'birds'.*quickstart"):
    concepts_of('birds')


@pytest.fixture
def packs(tmp_path, monkeypatch):
  """Packs of one emoji, that a test may damage."""

  def write(name, content):
    with lzma.open(tmp_path / f'{name}.json.xz', 'wt') as file:
      json.dump(content, file)

  record = {'hex': '1f98a', 'base': '1f98a', 'name': 'Fox & M\u00e9: \u2019'}
  record |= {'alt': ['+1', 'v', 'fox2', 'fox face'], 'tags': []}
  record |= {'group_text': 'a & b', 'subgroup_text': 'c', 'tone': None}
  record['artists'] = [*ARTISTS]
  write('meta', [record, record | {'hex': '1', 'base': '1'}])
  for pack in catalog_lib.PACK_OF_ARTIST.values():
    write(pack, {'icons': {'1f98a': [0, 0, 8, 8, '<path d=""/>']}})
  monkeypatch.setattr(catalog_lib, 'PACKS', tmp_path)
  return tmp_path


def test_texts_are_cleaned_and_the_undrawn_left_out(packs):
  (emoji,) = load_catalog.__wrapped__().emojis.values()
  assert (emoji.name, emoji.group) == ("fox and me, '", 'a and b')
  assert emoji.alternative_names == ('fox face',)


def test_openmoji_is_optional(packs):
  (packs / 'openmoji.json.xz').unlink()
  catalog = load_catalog.__wrapped__()
  assert tuple(catalog.icons) == ('noto', 'fluent', 'twemoji')
  # Who drew an emoji is known all the same: the splits ask for it.
  assert catalog.emojis['1f98a'].artists == ARTISTS
  assert catalog.artists_of('1f98a') == ('noto', 'fluent', 'twemoji')


def test_the_packs_hold_what_their_artists_drew():
  catalog = load_catalog()
  for emoji in catalog.emojis.values():
    assert emoji.artists == catalog.artists_of(emoji.hex)


def test_an_artist_who_is_not_there_is_told(monkeypatch):
  with pytest.raises(
    UserError, match="unknown emoji artist 'dali'; choose among"
  ):
    check_artists(['noto', 'dali'])
  catalog = load_catalog()
  icons = {a: i for a, i in catalog.icons.items() if a != 'openmoji'}
  without = dataclasses.replace(catalog, icons=icons)
  monkeypatch.setattr(catalog_lib, 'load_catalog', lambda: without)
  with pytest.raises(UserError, match=r'copy openmoji\.json\.xz .* or choose'):
    check_artists(['noto', 'openmoji'])


@pytest.mark.parametrize('content', [None, b'', b'not xz'])
def test_a_broken_pack_is_named(packs, content):
  path = packs / 'noto.json.xz'
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=r'noto\.json\.xz'):
    load_catalog.__wrapped__()


def test_every_pack_has_its_licence():
  attribution = (catalog_lib.PACKS / 'ATTRIBUTION.md').read_text()
  for path in catalog_lib.PACKS.iterdir():
    if path.name != 'ATTRIBUTION.md':
      assert f'`{path.name}`' in attribution
