"""Nearest drawings, by the squared distance of pixels.

Pixels are integers, and float64 holds their products' sums without rounding,
so distances are exact: drawings that are alike to the pixel (artists reuse
some for several concepts) are at equal distances, and all of them are found.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from unifluid_jax.data.emoji.catalog import Emoji, load_catalog
from unifluid_jax.data.emoji.concepts import concepts_of
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.utils.progress import track

_CHUNK = 2**22
"""Pixel values of the drawings that are compared at a time."""


def drawings_of(concepts: str) -> tuple[Drawing, ...]:
  """Every drawing of some concepts: all artists, all skin tones, on white.

  Args:
    concepts: Name of the set of concepts.
  """
  catalog = load_catalog()
  return tuple(
    Drawing(artist, emoji.hex)
    for concept in concepts_of(concepts)
    for emoji in catalog.families[concept.base]
    for artist in catalog.artists_of(emoji.hex)
  )


def emoji_of(picture: Drawing) -> Emoji:
  """The emoji that a picture shows."""
  return load_catalog().emojis[picture.hex]


def nearest(
  images: UInt8[np.ndarray, 'n S S 3'], bank: Sequence[Drawing]
) -> list[tuple[Drawing, ...]]:
  """For each image the picture at the least distance; several if they tie.

  Args:
    images: RGB.
    bank: What to search; drawn in the images' size, a chunk at a time.
  """
  side = images.shape[1]
  queries = images.reshape(len(images), -1).astype(np.float64)
  size = max(1, _CHUNK // queries.shape[1])
  least = np.full(len(images), np.inf)
  found: list[tuple[Drawing, ...]] = [()] * len(images)
  starts = range(0, len(bank), size)
  for start in track(starts, f'nearest of {len(bank)} pictures, part'):
    chunk = bank[start : start + size]
    scores = _scores(queries, np.stack([draw(p, side) for p in chunk]))
    lowest = scores.min(1)
    for i in np.flatnonzero(lowest <= least).tolist():
      ties = np.flatnonzero(scores[i] == lowest[i]).tolist()
      before = found[i] if lowest[i] == least[i] else ()
      found[i] = (*before, *(chunk[j] for j in ties))
    least = np.minimum(least, lowest)
  return found


def _scores(queries: np.ndarray, pixels: np.ndarray) -> np.ndarray:
  """Squared distances [n m], less the queries' own squared norms."""
  bank = pixels.reshape(len(pixels), -1).astype(np.float64)
  return np.square(bank).sum(1) - 2 * (queries @ bank.T)
