"""What is told while a long list is worked on."""

import pytest

from unifluid_jax.utils import progress


@pytest.fixture
def told(monkeypatch):
  """Lines of the log; an item takes two seconds."""
  lines = []
  clock = iter(range(0, 1000, 2))
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  monkeypatch.setattr(
    progress.logging, 'info', lambda text, *values: lines.append(text % values)
  )
  return lines


def test_progress_is_told_every_few_seconds_with_the_time_left(told):
  assert list(progress.track('abcdefgh', 'letters')) == list('abcdefgh')
  assert told == ['letters 3/8  ETA 0:10', 'letters 6/8  ETA 0:04']


def test_short_lists_are_silent(told):
  assert list(progress.track('ab', 'letters')) == ['a', 'b']
  assert told == []


def test_clock():
  assert progress.clock(3661.9) == '61:01'
