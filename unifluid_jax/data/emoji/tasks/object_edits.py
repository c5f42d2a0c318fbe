"""Edits of one emoji: another skin tone, background, side, artist or color."""

from collections.abc import Sequence
from typing import NamedTuple

from unifluid_jax.data.emoji.catalog import TONES, load_catalog
from unifluid_jax.data.emoji.colors import (
  BACKGROUNDS,
  color_families,
  thing_and_color,
)
from unifluid_jax.data.emoji.drawing import Drawing
from unifluid_jax.data.emoji.splits import (
  Cell,
  EmojiConfig,
  cells_of,
  is_held_out_pair,
  split_of,
)

WORDINGS = {
  'tone': ('make the skin tone {tone}', 'change the skin tone to {tone}'),
  'background': (
    'make the background {background}',
    'change the background to {background}',
  ),
  'flip': ('flip it horizontally', 'mirror it'),
  'style': ('redraw it in the {artist} style', 'make it {artist} style'),
  'color': ('make the {thing} {color}', 'change the {thing} to {color}'),
}
"""The instruction of each kind; the first wording is the canonical one."""

EXACT = ('tone', 'background', 'flip')
"""Kinds whose target is one image only. Artists draw different things in
different colors, so 'style' and 'color' are judged by likeness."""


class ObjectEdit(NamedTuple):
  """A record: both drawings, on white unless the background is edited."""

  kind: str
  source: Drawing
  target: Drawing


def words_of(edit: ObjectEdit) -> dict[str, str]:
  """The words that fill the wording's braces."""
  target = edit.target
  thing, color = thing_and_color().get(target.hex, ('', ''))
  return {
    'tone': load_catalog().emojis[target.hex].tone or 'yellow',
    'background': target.background,
    'artist': target.artist,
    'thing': thing,
    'color': color,
  }


def list_edits(
  kind: str, config: EmojiConfig, split: str
) -> Sequence[ObjectEdit]:
  """All edits of a kind in a split.

  A held-out cell is only ever a target, or both source and target; the source
  of an edit into it is a training cell.

  Args:
    kind: A key of WORDINGS.
    config: Concepts, artists and image size.
    split: One of `splits.SPLITS`.
  """
  cells = {*cells_of(config, 'train'), *cells_of(config, split)}
  sources = (
    Drawing(cell.artist, emoji.hex)
    for cell in sorted(cells)
    for emoji in cell.members()
  )
  edits = (
    ObjectEdit(kind, source, target)
    for source in sources
    for target in alternatives(kind, source)
  )
  return [
    edit
    for edit in edits
    if _cell_of(edit.target) in cells and _is_in(edit, split)
  ]


def alternatives(kind: str, picture: Drawing) -> list[Drawing]:
  """What a kind of edit can turn a picture into."""
  catalog = load_catalog()
  emoji = catalog.emojis[picture.hex]
  drawn = catalog.icons[picture.artist]
  if kind == 'tone':
    family = catalog.families[emoji.base]
    hexes = [e.hex for e in family if e.tone in ('', *TONES)]
  elif kind == 'color':
    thing, _ = thing_and_color().get(picture.hex, ('', ''))
    hexes = [e.hex for e in color_families().get(thing, {}).values()]
  elif kind == 'background':
    return [picture._replace(background=name) for name in BACKGROUNDS]
  elif kind == 'flip':
    return [picture._replace(flipped=not picture.flipped)]
  else:
    artists = catalog.artists_of(picture.hex)
    return [picture._replace(artist=a) for a in artists if a != picture.artist]
  return [
    picture._replace(hex=hex)
    for hex in hexes
    if hex in drawn and hex != picture.hex
  ]


def _cell_of(picture: Drawing) -> Cell:
  return Cell(picture.artist, load_catalog().emojis[picture.hex].base)


def _is_in(edit: ObjectEdit, split: str) -> bool:
  """Whether an edit belongs to a split; its cells are of it or of training."""
  if split in ('cell', 'concept'):
    return split_of(_cell_of(edit.target)) == split
  value = words_of(edit).get(edit.kind, '')
  held_out = edit.kind in EXACT and is_held_out_pair(
    edit.source.artist, edit.source.hex, edit.kind, value
  )
  return held_out == (split == 'pair')
