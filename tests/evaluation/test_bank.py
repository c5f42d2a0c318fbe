"""Nearest drawings against brute force on integers."""

import numpy as np
import pytest

from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.evaluation import bank

SIDE = 16


def brute_force(image, pictures):
  """All pictures at the least squared distance, in integers."""
  distances = [
    int(((image.astype(int) - draw(p, SIDE).astype(int)) ** 2).sum())
    for p in pictures
  ]
  return {
    p
    for p, distance in zip(pictures, distances, strict=True)
    if distance == min(distances)
  }


@pytest.mark.parametrize('chunk', [1, 7 * 3 * SIDE**2, 2**22])
def test_nearest_is_what_brute_force_finds(monkeypatch, chunk):
  monkeypatch.setattr(bank, '_CHUNK', chunk)
  pictures = bank.drawings_of('few')[:60]
  rng = np.random.default_rng(0)
  noise = rng.integers(-60, 60, (20, SIDE, SIDE, 3))
  images = np.stack([draw(p, SIDE) for p in pictures[:20]]) + noise
  images = np.clip(images, 0, 255).astype(np.uint8)
  found = bank.nearest(images, pictures)
  assert [set(f) for f in found] == [brute_force(i, pictures) for i in images]


def test_a_drawing_is_nearest_to_itself_one_grey_level_apart():
  picture = bank.drawings_of('few')[0]
  image = draw(picture, SIDE).copy()
  image[3, 4, 1] ^= 1
  (found,) = bank.nearest(image[None], bank.drawings_of('few'))
  assert found == (picture,)


@pytest.mark.parametrize('chunk', [1, 2**22])
def test_drawings_that_are_alike_tie(monkeypatch, chunk):
  monkeypatch.setattr(bank, '_CHUNK', chunk)
  by_concept = {e.name: e for e in load_catalog().emojis.values()}
  names = ('flag, norway', 'fox', 'flag, svalbard and jan mayen')
  pictures = [Drawing('twemoji', by_concept[name].hex) for name in names]
  (found,) = bank.nearest(draw(pictures[0], 32)[None], pictures)
  assert found == (pictures[0], pictures[2])


def test_drawings_of_concepts_have_all_artists_and_tones():
  drawings = bank.drawings_of('few')
  assert len(set(drawings)) == len(drawings)
  thumbs = [p for p in drawings if bank.emoji_of(p).concept == 'thumbs up']
  assert len(thumbs) == 4 * 6
  assert {p.artist for p in thumbs} == set(load_catalog().icons)
