"""An XProf trace of chosen steps."""

from typing import Any

import jax
from absl import logging

from unifluid_jax.utils.paths import AnyPath


class Profile:
  """Traces steps; as a context manager, ends a running trace on exit."""

  def __init__(self, folder: AnyPath, steps: tuple[int, int] | None):
    """Creates a profiler; starts no trace.

    Args:
      folder: Folder of the trace, local or in a bucket; one file per process.
      steps: First and last step, numbered from 1 as in the log; None for no
        trace. A run that resumes between them traces the rest.
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
    """Starts the trace if it is due; call before each step."""
    if not self._tracing and self._first <= number <= self._last:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def after(self, number: int, state: Any) -> None:
    """Ends the trace if it is due; call after each step.

    Args:
      number: The step.
      state: Result of the step; the trace includes the work behind it.
    """
    if self._tracing and number == self._last:
      jax.block_until_ready(state)
      self._stop()

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._tracing = False
    logging.info('wrote an XProf trace to %s', self._folder)
