"""An XProf trace of chosen steps."""

from typing import Any

import jax
from absl import logging

from unifluid_jax.utils.paths import AnyPath


class Profile:
  """Traces steps; as a context manager it ends a trace that is under way."""

  def __init__(self, folder: AnyPath, steps: tuple[int, int] | None):
    """Nothing is traced yet.

    Args:
      folder: Where the trace goes, also a bucket's; each process writes a file.
      steps: First and last step, numbered from 1 as in the log; None for no
        trace. Of a run that resumes among them, the rest is traced.
    """
    self._folder = folder
    self._first, self._last = steps or (0, 0)
    self._tracing = False

  def __enter__(self) -> 'Profile':
    return self

  def __exit__(self, *error: object) -> None:
    if self._tracing:
      self._stop()

  def before(self, number: int) -> None:
    """To be called before a step; starts the trace where it is due."""
    if not self._tracing and self._first <= number <= self._last:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def after(self, number: int, state: Any) -> None:
    """To be called after a step; ends the trace where it is due.

    Args:
      number: The step.
      state: What the step gave; the trace has the devices' work up to it.
    """
    if self._tracing and number == self._last:
      jax.block_until_ready(state)
      self._stop()

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._tracing = False
    logging.info('the trace is in %s', self._folder)
