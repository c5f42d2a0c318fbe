"""The splits: disjoint, stable, of the right size, blind to the subset."""

import collections
import hashlib

import pytest

from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.concepts import concepts_of
from unifluid_jax.data.emoji.drawing import list_drawings
from unifluid_jax.data.emoji.splits import (
  Cell,
  EmojiConfig,
  cells_of,
  is_held_out_pair,
  split_of,
)
from unifluid_jax.utils.errors import UserError

ALL = EmojiConfig('all', ARTISTS)


def all_cells():
  return {s: set(cells_of(ALL, s)) for s in ('train', 'cell', 'concept')}


def test_the_splits_part_the_images():
  cells = all_cells()
  assert sum(map(len, cells.values())) == len(set().union(*cells.values()))
  pictures = [p for s in cells for p in list_drawings(ALL, s)]
  assert len(pictures) == len(set(pictures)) == 14_709


def test_proportions():
  cells = all_cells()
  concepts = {cell.base for cell in cells['concept']}
  assert len(concepts) / 1914 == pytest.approx(0.05, abs=0.01)
  icons = load_catalog().artists_of
  eligible = [
    c for c in cells['train'] | cells['cell'] if len(icons(c.base)) > 2
  ]
  share = len(cells['cell']) / len(eligible)
  assert share == pytest.approx(0.1, abs=0.01)
  alike = EmojiConfig('drawn_alike', ARTISTS)
  assert len(cells_of(alike, 'cell')) == 31
  assert len(cells_of(alike, 'train')) == 277


def test_whole_concepts_are_held_out_and_others_keep_two_artists():
  cells = all_cells()
  concepts = {cell.base for cell in cells['concept']}
  kept = collections.Counter(cell.base for cell in cells['train'])
  drawn = load_catalog().artists_of
  for base in load_catalog().families:
    if base in concepts:
      assert kept[base] == 0
    else:
      assert kept[base] >= max(2, len(drawn(base)) - 1)
  assert not concepts & {c.base for c in concepts_of('drawn_alike')}


def test_membership_never_changes():
  """A published number on a held-out split must stay comparable."""
  digests = {
    split: hashlib.sha256(repr(sorted(cells)).encode()).hexdigest()[:16]
    for split, cells in all_cells().items()
  }
  assert digests == {
    'train': 'f6ccd0f77a5162d9',
    'cell': 'e8e500001911875b',
    'concept': '90425b5c70396b42',
  }


def test_membership_does_not_depend_on_the_subset():
  for concepts in 'quickstart', 'animals_food':
    for artists in ARTISTS[:2], ARTISTS[::-1]:
      config = EmojiConfig(concepts, artists)
      for cell in cells_of(config, 'cell'):
        assert cell in set(cells_of(ALL, 'cell'))
        assert split_of(cell) == 'cell'


def test_the_quickstart_cells_are_spread():
  cells = cells_of(EmojiConfig('drawn_alike', ARTISTS), 'cell')
  emojis = load_catalog().emojis
  artists = collections.Counter(cell.artist for cell in cells)
  groups = collections.Counter(emojis[cell.base].group for cell in cells)
  assert min(artists.values()) >= 7
  assert len(groups) == 8
  assert max(groups.values()) / len(cells) < 0.2


def test_pairs_are_a_tenth():
  pictures = list_drawings(ALL, 'train')
  held_out = sum(
    is_held_out_pair(p.artist, p.hex, 'flip', '') for p in pictures
  )
  assert held_out / len(pictures) == pytest.approx(0.1, abs=0.01)


def test_a_cell_has_the_tones_that_the_artist_drew():
  handshake = '1f91d'
  assert len(Cell('noto', handshake).members()) == 26
  assert len(Cell('fluent', handshake).members()) == 1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'concepts': 'birds'}, 'birds'),
    ({'artists': ('noto', 'apple')}, "'apple'.*twemoji"),
    ({'image_size': 33}, '33.*even'),
    ({'image_size': 8}, '8.*16'),
  ],
)
def test_a_wrong_config_is_named(arguments, message):
  with pytest.raises(UserError, match=message):
    EmojiConfig(**arguments)


def test_a_wrong_or_empty_split_is_named():
  with pytest.raises(UserError, match="'test'.*train"):
    cells_of(EmojiConfig('drawn_alike', ARTISTS), 'test')
  with pytest.raises(UserError, match='empty'):
    cells_of(EmojiConfig('drawn_alike', ARTISTS), 'concept')
