"""A picture of one emoji: what the single-object tasks show and edit."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.render import composite, render
from unifluid_jax.data.emoji.splits import EmojiConfig, cells_of

VARIED_SHARE = 0.25
"""Share of the pictures that augmentation changes; the others are as drawn."""

AUGMENTED_SCALES = 5
"""Sizes that augmentation renders, evenly spaced in 0.75..1.0 of the side."""


class Drawing(NamedTuple):
  """One emoji that fills the canvas.

  Attributes:
    artist: Who drew it.
    hex: Which emoji, with its skin tone.
    background: A key of BACKGROUNDS.
    flipped: Whether left and right are exchanged.
  """

  artist: str
  hex: str
  background: str = 'white'
  flipped: bool = False


def list_drawings(config: EmojiConfig, split: str) -> tuple[Drawing, ...]:
  """Every image of a split, each on white, in the catalog's order."""
  return tuple(
    Drawing(cell.artist, emoji.hex)
    for cell in cells_of(config, split)
    for emoji in cell.members()
  )


def draw(picture: Drawing, side: int) -> UInt8[np.ndarray, '{side} {side} 3']:
  """The picture's pixels, RGB."""
  rgba = render(picture.artist, picture.hex, side)
  rgb = composite(rgba, BACKGROUNDS[picture.background])
  return rgb[:, ::-1].copy() if picture.flipped else rgb


def draw_augmented(
  picture: Drawing, side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, '{side} {side} 3']:
  """The picture, smaller by up to a quarter and shifted within the canvas.

  The drawing is rendered at the smaller size, so it stays sharp, and is never
  cut off. A flip would change what some emoji mean, so there is none.
  """
  step = rng.integers(AUGMENTED_SCALES) / (4 * (AUGMENTED_SCALES - 1))
  small = round(side * (1 - step))
  top, left = rng.integers(side - small + 1, size=2)
  canvas = np.empty((side, side, 3), np.uint8)
  canvas[:] = BACKGROUNDS[picture.background]
  inside = canvas[top : top + small, left : left + small]
  inside[:] = draw(picture, small)
  return canvas
