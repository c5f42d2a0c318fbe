"""What training never sees: cells, concepts, and pairs of image and edit.

A cell is one artist's drawing of one concept, in all its skin tones.

- `cell`: 10 % of the cells. The concept is known from the other artists, the
  artist from other concepts, but the two were never seen together. A concept
  loses at most one artist, and only if at least two others remain.
- `concept`: 5 % of the concepts, with all their cells. Those of
  DRAWN_ALIKE are exempt, so that every one of them can be trained.
- `pair`: 10 % of the (image, exact edit) pairs of the training cells. The image
  is seen with other edits and the edit on other images.

Membership is a function of a SHA-256 of the code points and the artist, and of
which artists drew the concept: it depends neither on the configured subset, nor
on which packs are there, nor on any random state.
"""

import dataclasses
import functools
import hashlib
from typing import NamedTuple

from unifluid_jax.data.emoji.catalog import (
  BUNDLED,
  Emoji,
  check_artists,
  load_catalog,
)
from unifluid_jax.data.emoji.concepts import DRAWN_ALIKE, concepts_of
from unifluid_jax.utils.errors import UserError

HELD_OUT_CELLS = 0.10
HELD_OUT_CONCEPTS = 0.05
HELD_OUT_PAIRS = 0.10

SALT = '302'
"""Goes into every hash. Chosen so that the held-out cells of concepts that are
drawn alike are spread evenly over artists and groups."""

SPLITS = ('train', 'cell', 'concept', 'pair')


@dataclasses.dataclass(frozen=True)
class EmojiConfig:
  """What part of the embedded data set to use.

  Attributes:
    concepts: A named set of concepts, a key of `concepts.CONCEPT_SETS`.
    artists: Some of `catalog.ARTISTS`.
    image_size: Side of the images in pixels.
  """

  concepts: str = 'quickstart'
  artists: tuple[str, ...] = BUNDLED
  image_size: int = 32

  def __post_init__(self):
    concepts_of(self.concepts)  # raises on an unknown name
    check_artists(self.artists)
    if self.image_size < 16 or self.image_size % 2:
      raise UserError(
        f'image_size is {self.image_size}; it must be even and at least 16.'
      )


class Cell(NamedTuple):
  """One artist's drawing of one concept, in all its skin tones."""

  artist: str
  base: str

  def members(self) -> tuple[Emoji, ...]:
    """The emoji of the concept that the artist drew, the untoned one first."""
    catalog = load_catalog()
    drawn = catalog.icons[self.artist]
    return tuple(e for e in catalog.families[self.base] if e.hex in drawn)


def unit_hash(*parts: str) -> float:
  """A uniform number in [0, 1) that is a function of the texts alone."""
  digest = hashlib.sha256('\0'.join((SALT, *parts)).encode()).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64


def split_of(cell: Cell) -> str:
  """The split of a cell: 'train', 'cell' or 'concept'."""
  if _is_held_out_concept(cell.base):
    return 'concept'
  return 'cell' if _held_out_artist(cell.base) == cell.artist else 'train'


def is_held_out_pair(artist: str, hex: str, kind: str, value: str) -> bool:
  """Whether training never sees this edit of this image.

  Args:
    artist: Who drew the source.
    hex: Which emoji the source is.
    kind: Kind of the edit, e.g. 'background'.
    value: What the kind leaves open, e.g. 'pink'; '' for nothing.
  """
  return unit_hash('pair', artist, hex, kind, value) < HELD_OUT_PAIRS


@functools.cache
def cells_of(config: EmojiConfig, split: str) -> tuple[Cell, ...]:
  """The cells of a split, in the catalog's order.

  Args:
    config: Concepts and artists.
    split: One of SPLITS; 'pair' has the training cells.

  Raises:
    UserError: There is no such split, or it is empty.
  """
  if split not in SPLITS:
    raise UserError(
      f'unknown split {split!r}; choose one of {", ".join(SPLITS)}.'
    )
  wanted = 'train' if split == 'pair' else split
  icons = load_catalog().icons
  cells = tuple(
    cell
    for concept in concepts_of(config.concepts)
    for artist in config.artists
    if concept.hex in icons[artist]
    and split_of(cell := Cell(artist, concept.base)) == wanted
  )
  if not cells:
    raise UserError(
      f'The split {split!r} is empty for the concepts {config.concepts!r} by '
      f'{", ".join(config.artists)}; choose another split or more concepts.'
    )
  return cells


@functools.cache
def _is_held_out_concept(base: str) -> bool:
  is_held_out = unit_hash('concept', base) < HELD_OUT_CONCEPTS
  return is_held_out and base not in _drawn_alike()


@functools.cache
def _drawn_alike() -> frozenset[str]:
  emojis = load_catalog().emojis.values()
  return frozenset(e.base for e in emojis if e.concept in DRAWN_ALIKE)


@functools.cache
def _held_out_artist(base: str) -> str | None:
  """The one artist, if any, whose drawing of the concept is held out."""
  artists = load_catalog().emojis[base].artists
  # One cell of a concept with n artists, in n * 10 % of the concepts.
  rate = HELD_OUT_CELLS * len(artists)
  if len(artists) < 3 or unit_hash('has cell', base) >= rate:
    return None
  return min(artists, key=lambda artist: unit_hash('cell', base, artist))
