"""Goodput: the share of a process's wall time that goes into training steps.

Every second since the process was started belongs to exactly one part:

  train       the training loop, less the parts below
  compile     the first call of each step function: tracing it, and compiling
              it or reading it from the compilation cache
  restore     reading checkpoints
  data_wait   waiting for batches; an upper bound of what is lost, since the
              devices may still be busy with the steps before
  save        the part of saving that training waits for
  evaluation  held-out losses; sampling and measuring after training
  start       all else: imports, opening the data, initialization

and goodput is train / all. A run that is started several times has a goodput of
each start; the time between them, and the steps that a kill made it repeat, are
known to no process.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from unifluid_jax.utils.progress import clock

PARTS = (
  'train',
  'compile',
  'restore',
  'data_wait',
  'save',
  'evaluation',
  'start',
)


class Goodput:
  """An account of wall time: each second is spent on one part."""

  def __init__(
    self, age: float = 0.0, now: Callable[[], float] = time.monotonic
  ):
    """Starts the account; time outside of other parts counts as 'start'.

    Args:
      age: Seconds that have passed before.
      now: The clock, in seconds.
    """
    self._now = now
    self._spent = dict.fromkeys(PARTS, 0.0)
    self._part = 'start'
    self._since = now() - age

  @classmethod
  def of_process(cls) -> 'Goodput':
    """Starts an account that includes the time since this process started."""
    return cls(_process_age())

  @contextlib.contextmanager
  def spend(self, part: str) -> Iterator[None]:
    """Spends the time of the block on a part, and not on the one around it."""
    around = self._switch(part)
    try:
      yield
    finally:
      self._switch(around)

  @property
  def seconds(self) -> dict[str, float]:
    """Seconds spent so far, by part."""
    self._switch(self._part)
    return dict(self._spent)

  def __str__(self) -> str:
    """One line, e.g. '81 % of 12:03 in training steps; lost: compile 0:31'."""
    seconds = self.seconds
    lost = ', '.join(
      f'{part.replace("_", " ")} {clock(seconds[part])}'
      for part in PARTS
      if part != 'train'
    )
    whole = clock(sum(seconds.values()))
    return f'{share(seconds):.0%} of {whole} in training steps; lost: {lost}'

  def _switch(self, part: str) -> str:
    """Spends on a part from now on; gives the one before."""
    now, before = self._now(), self._part
    self._spent[before] += now - self._since
    self._part, self._since = part, now
    return before


def share(seconds: dict[str, float]) -> float:
  """Goodput, 0 to 1, of one reading of an account's seconds."""
  return seconds['train'] / max(sum(seconds.values()), 1e-9)


def _process_age() -> float:
  """Returns the seconds since this process started; 0 outside of Linux."""
  try:
    stat = pathlib.Path('/proc/self/stat').read_text(encoding='ascii')
    uptime = pathlib.Path('/proc/uptime').read_text(encoding='ascii')
  except OSError:
    return 0.0
  # Field 22, counted from 1; the name, field 2, may have spaces.
  started = int(stat.rpartition(')')[2].split()[19])
  ticks = os.sysconf('SC_CLK_TCK')
  return max(float(uptime.split()[0]) - started / ticks, 0.0)
