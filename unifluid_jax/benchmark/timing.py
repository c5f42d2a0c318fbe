"""Seconds of calls: the first one, and those after it."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
  """Wall time of equal calls, in seconds.

  Attributes:
    first: Of the first call, which compiles or reads the compilation cache.
    median: Of the calls after it.
    fastest: Of the calls after it.
    slowest: Of the calls after it.
  """

  first: float
  median: float
  fastest: float
  slowest: float


def time_calls(call: Callable[[], Any], count: int) -> Timing:
  """Times one call and `count` more; each ends when its arrays are ready."""
  seconds = []
  for _ in range(1 + count):
    start = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - start)
  first, *others = seconds
  return Timing(first, statistics.median(others), min(others), max(others))
