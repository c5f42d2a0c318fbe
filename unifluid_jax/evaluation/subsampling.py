"""Seeded draws with independent random streams."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar('T')


def rng_of(seed: int, purpose: str) -> np.random.Generator:
  """The random stream of a purpose; it does not depend on other streams."""
  return np.random.default_rng([seed, *purpose.encode()])


def some(items: Sequence[T], most: int, rng: np.random.Generator) -> list[T]:
  """At most `most` of the items, without replacement, in their order."""
  chosen = rng.permutation(len(items))[:most]
  return [items[i] for i in sorted(chosen.tolist())]
