"""Scenes: up to four small emoji on a canvas, each in a quadrant of its own.

As no two objects share a quadrant, what is left of what, and above what, holds
by construction; diagonal neighbors have no such relation.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.render import composite, render

QUADRANTS = ('top left', 'top right', 'bottom left', 'bottom right')
"""Names of the quadrants: bit 0 of the index is right, bit 1 is bottom."""


class Placed(NamedTuple):
  """One object of a scene; its box lies inside its quadrant.

  Attributes:
    hex: Which emoji.
    quadrant: Index into QUADRANTS.
    left: Left side of the box, pixels from the left of the canvas.
    top: Top side of the box, pixels from the top of the canvas.
    side: Side of the box in pixels.
  """

  hex: str
  quadrant: int
  left: int
  top: int
  side: int


class Scene(NamedTuple):
  """Objects by one artist on a colored canvas."""

  artist: str
  background: str
  objects: tuple[Placed, ...]

  def free_quadrants(self) -> tuple[int, ...]:
    """The quadrants without an object."""
    taken = {placed.quadrant for placed in self.objects}
    return tuple(q for q in range(len(QUADRANTS)) if q not in taken)


def draw_scene(scene: Scene, side: int) -> UInt8[np.ndarray, '{side} {side} 3']:
  """The scene's pixels, RGB."""
  canvas = np.empty((side, side, 3), np.uint8)
  canvas[:] = BACKGROUNDS[scene.background]
  for placed in scene.objects:
    box = canvas[
      placed.top : placed.top + placed.side,
      placed.left : placed.left + placed.side,
    ]
    box[:] = composite(render(scene.artist, placed.hex, placed.side), box)
  return canvas


def place(
  hex: str, quadrant: int, side: int, jitter: bool, rng: np.random.Generator
) -> Placed:
  """Puts an emoji into a quadrant of a canvas.

  Args:
    hex: Which emoji.
    quadrant: Index into QUADRANTS.
    side: Side of the canvas in pixels, even.
    jitter: Draw the size (3/4 of the quadrant and up) and the place at random,
      instead of filling the quadrant.
    rng: Source of the size and the place.
  """
  room = side // 2
  size = int(rng.integers(3 * room // 4, room + 1)) if jitter else room
  shift_x, shift_y = rng.integers(room - size + 1, size=2)
  return Placed(
    hex=hex,
    quadrant=quadrant,
    left=quadrant % 2 * room + int(shift_x),
    top=quadrant // 2 * room + int(shift_y),
    side=size,
  )


def arrange(
  artist: str,
  hexes: Sequence[str],
  quadrants: Iterable[int],
  background: str,
  side: int,
  jitter: bool,
  rng: np.random.Generator,
) -> Scene:
  """Puts each emoji into its quadrant, see `place`; spare ones stay free."""
  objects = (
    place(hex, int(quadrant), side, jitter, rng)
    for hex, quadrant in zip(hexes, quadrants, strict=False)
  )
  return Scene(artist, background, tuple(objects))
