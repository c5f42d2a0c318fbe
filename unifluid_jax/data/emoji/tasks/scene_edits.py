"""Edits of scenes: an object is added, removed or replaced.

Objects fill their quadrants, so that the target is one image only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unifluid_jax.data.emoji.catalog import Emoji
from unifluid_jax.data.emoji.scenes import QUADRANTS, Scene, arrange
from unifluid_jax.data.emoji.splits import Cell

WORDINGS = {
  'add': ('add {name} at the {quadrant}', 'put {name} at the {quadrant}'),
  'remove': ('remove {name}', 'take {name} away'),
  'replace': ('replace {other} with {name}', 'change {other} to {name}'),
}
"""The instruction of each kind; the first wording is the canonical one."""


class SceneEdit(NamedTuple):
  """A record: the kind, and the object that comes or goes."""

  kind: str
  cell: Cell


def make_scenes(
  kind: str,
  emoji: Emoji,
  artist: str,
  background: str,
  others: Sequence[Emoji],
  side: int,
  rng: np.random.Generator,
) -> tuple[Scene, Scene, dict[str, str]]:
  """Makes the scenes before and after an edit.

  Args:
    kind: A key of WORDINGS.
    emoji: The object that comes or goes.
    artist: Who draws all objects.
    background: Color of the canvas.
    others: Three other concepts, to fill the scene; a fourth, to replace.
    side: Side of the canvas in pixels.
    rng: Source of the scene.

  Returns:
    The source, the target, and the words that fill the wording's braces.
  """
  company = others[: int(rng.integers(1, len(QUADRANTS)))]
  quadrants = [int(q) for q in rng.permutation(len(QUADRANTS))]

  def scene(emojis: Sequence[Emoji], quadrants: Sequence[int]) -> Scene:
    hexes = [emoji.hex for emoji in emojis]
    return arrange(artist, hexes, quadrants, background, side, False, rng)

  with_object = scene([emoji, *company], quadrants)
  without = scene(company, quadrants[1:])
  other = others[-1]
  words = {
    'name': emoji.concept,
    'quadrant': QUADRANTS[quadrants[0]],
    'other': other.concept,
  }
  if kind == 'add':
    return without, with_object, words
  if kind == 'remove':
    return with_object, without, words
  return scene([other, *company], quadrants), with_object, words
