"""Kernel distance between generated images and the drawings they should be.

Legend: n images, S pixels along a side, D dimensions of their features.
"""

from collections.abc import Mapping

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from unifluid_jax.evaluation import feature_network
from unifluid_jax.evaluation.measure import Measure, Measures
from unifluid_jax.evaluation.subsampling import rng_of

_FEWEST = 100
"""Images below which the distance is mostly noise."""

_SUBSETS, _SUBSET_SIZE = 100, 1000


def kernel_distances(
  wanted: UInt8[np.ndarray, 'n S S 3'],
  others: Mapping[str, UInt8[np.ndarray, 'n S S 3']],
  seed: int,
) -> Measures:
  """Measures how far sets of images are from the drawings they should show.

  Needs the `evaluation` extra; there are no measures without it, or with too
  few images.

  Args:
    wanted: The drawings.
    others: Sets of images, by the name of their measure.
    seed: Seed of the subsets.
  """
  if len(wanted) < _FEWEST:
    return {}
  if not feature_network.is_installed():
    logging.info(
      '%s: not measured; run pip install unifluid_jax[evaluation]',
      ', '.join(others),
    )
    return {}
  real = feature_network.features(wanted, 'drawings')
  measures = {}
  for name, images in others.items():
    found = feature_network.features(images, name)
    distance = kernel_distance(real, found, rng_of(seed, name))
    measures[name] = Measure(distance, len(images))
  return measures


def kernel_distance(
  a: Float[np.ndarray, 'n D'],
  b: Float[np.ndarray, 'm D'],
  rng: np.random.Generator,
  subsets: int = _SUBSETS,
  size: int = _SUBSET_SIZE,
) -> float:
  """Computes the kernel inception distance (KID) in any features.

  The unbiased estimate of the squared maximum mean discrepancy with the kernel
  (x . y / D + 1)^3, averaged over random subsets (Binkowski et al., arXiv
  1801.01401). It is about 0, and may be negative, for sets of one distribution.
  Figures of different feature networks do not compare.

  Args:
    a: Features of one set.
    b: Features of the other set.
    rng: Draws the subsets.
    subsets: Number of subsets; one, of everything, if no set is larger.
    size: Images of a subset, from each set.
  """
  if max(len(a), len(b)) <= size:
    return _squared_discrepancy(a, b)
  return float(
    np.mean(
      [
        _squared_discrepancy(*(_draw(values, size, rng) for values in (a, b)))
        for _ in range(subsets)
      ]
    )
  )


def _draw(
  values: Float[np.ndarray, 'n D'], size: int, rng: np.random.Generator
) -> Float[np.ndarray, 's D']:
  return values[rng.permutation(len(values))[:size]]


def _squared_discrepancy(
  a: Float[np.ndarray, 'n D'], b: Float[np.ndarray, 'm D']
) -> float:
  a, b = a.astype(np.float64), b.astype(np.float64)

  def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3

  def within(x):
    values = kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

  return float(within(a) + within(b) - 2 * kernel(a, b).mean())
