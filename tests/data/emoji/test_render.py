"""Rendering and compositing."""

import numpy as np
import pytest

from unifluid_jax.data.emoji import render as render_lib
from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.drawing import (
  Drawing,
  draw,
  draw_augmented,
  list_drawings,
)
from unifluid_jax.data.emoji.render import composite, render, render_icon
from unifluid_jax.data.emoji.splits import EmojiConfig

CONFIG = EmojiConfig('drawn_alike', ARTISTS)
FOX = '1f98a'


def test_no_image_is_blank_and_no_two_are_equal():
  pictures = list_drawings(CONFIG, 'train') + list_drawings(CONFIG, 'cell')
  seen = set()
  for picture in pictures:
    rgba = render(picture.artist, picture.hex, 32)
    assert rgba.shape == (32, 32, 4)
    assert rgba.dtype == np.uint8
    assert (rgba[..., 3] > 0).mean() > 0.05, picture
    seen.add(rgba.tobytes())
  assert len(pictures) == 77 * 4 + 10 * 5 * 4 == len(seen)


def test_rendering_again_gives_the_same_pixels():
  icon = load_catalog().icons['noto'][FOX]
  first = render('noto', FOX, 48)
  np.testing.assert_array_equal(first, render_icon(icon, 48))
  assert render('noto', FOX, 48) is first
  assert not first.flags.writeable


@pytest.mark.parametrize('artist', load_catalog().icons)
def test_sizes_agree(artist):
  """Rendered large and averaged down is rendered small, to half a pixel."""
  white = (255, 255, 255)
  small = composite(render(artist, FOX, 24), white).astype(float)
  large = composite(render(artist, FOX, 192), white).astype(float)
  averaged = large.reshape(24, 8, 24, 8, 3).mean(axis=(1, 3))

  def distance(shift: int, axis: int) -> float:
    return np.abs(np.roll(small, shift, axis) - averaged).mean()

  shifted = (distance(s, axis) for s in (-1, 1) for axis in (0, 1))
  assert distance(0, 0) < min(shifted) / 2


def test_composite_is_the_rounded_mixture():
  rng = np.random.default_rng(0)
  rgba = rng.integers(0, 256, (64, 64, 4), np.uint8)
  below = rng.integers(0, 256, (64, 64, 3), np.uint8)
  alpha = rgba[..., 3:] / 255
  exact = alpha * rgba[..., :3] + (1 - alpha) * below
  np.testing.assert_array_equal(composite(rgba, below), np.rint(exact))
  red = composite(rgba, (255, 0, 0))
  full = np.broadcast_to(np.array([255, 0, 0], np.uint8), below.shape)
  np.testing.assert_array_equal(red, composite(rgba, full))


def test_the_cache_is_bounded_over_all_sizes(monkeypatch):
  drawn = []

  def draw(icon, side):
    drawn.append(side)
    return np.zeros((side, side, 4), np.uint8)

  monkeypatch.setattr(render_lib, 'render_icon', draw)
  monkeypatch.setattr(render_lib, 'CACHE_BYTES', 4 * (16**2 + 32**2))
  monkeypatch.setattr(render_lib, '_CACHE', render_lib._Cache())
  for side in (16, 32, 16):
    render('noto', FOX, side)
  assert drawn == [16, 32]
  render('noto', FOX, 8)  # makes 32 px go, which was asked for longest ago
  for side in (16, 8, 32):
    render('noto', FOX, side)
  assert drawn == [16, 32, 8, 32]


def test_augmentation_keeps_the_whole_drawing():
  """Each augmented picture is a smaller rendering, pasted somewhere."""
  rng = np.random.default_rng(0)
  picture = Drawing('noto', FOX, 'pink')
  places = set()
  for _ in range(40):
    image = draw_augmented(picture, 32, rng)
    found = [
      (side, top, left)
      for side in (24, 26, 28, 30, 32)
      for top in range(33 - side)
      for left in range(33 - side)
      if np.array_equal(
        image[top : top + side, left : left + side], draw(picture, side)
      )
    ]
    (side, top, left) = found[0]
    outside = np.ones((32, 32), bool)
    outside[top : top + side, left : left + side] = False
    assert (image[outside] == (255, 184, 208)).all()
    places.add(found[0])
  assert len(places) > 20
  assert {side for side, _, _ in places} == {24, 26, 28, 30, 32}
