"""Logs the progress of long work every few seconds."""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from absl import logging

T = TypeVar('T')

_SECONDS = 5.0
"""Least time between two lines of the log."""


def track(items: Sequence[T], name: str) -> Iterator[T]:
  """Goes through the items and logs how many are done, and the time left.

  Args:
    items: What to go through.
    name: What the log calls it.
  """
  start = told = time.monotonic()
  for done, item in enumerate(items, 1):
    yield item
    now = time.monotonic()
    if now - told >= _SECONDS and done < len(items):
      told = now
      left = (now - start) / done * (len(items) - done)
      logging.info('%s %d/%d  ETA %s', name, done, len(items), clock(left))


def clock(seconds: float) -> str:
  """Minutes and seconds, e.g. '3:07'."""
  return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'
