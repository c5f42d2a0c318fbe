"""Requests to stop: SIGTERM (a preemption, `tpu_vm.sh stop`) and SIGINT.

A request reaches the end of a step, where the loop saves and ends. Several
processes must end after the same step, whichever of them got the signal: JAX's
preemption service tells the others, and agrees with them on a step that none
has reached yet (Orbax's `reached_preemption` asks the same service). It listens
for SIGTERM from `jax.distributed.initialize` on.
"""

import contextlib
import itertools
import os
import signal
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from unifluid_jax.distributed.interruption import Interrupted

_ASKED = itertools.count()
"""How often this process asked. Unlike steps, which begin anew where a process
trains a VAE and then UniFluid, it passes every number once."""


class StopRequest:
  """Collects the signals, as a context manager, instead of dying of them.

  A second signal of the same kind kills at once, except for SIGTERM of several
  processes, which is the preemption service's. One that comes after the last
  step is followed at the end of the block, and so is one that was sent to all
  processes of a terminal and ended those that read the data.
  """

  def __init__(self):
    self._received: list[int] = []
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> 'StopRequest':
    ours = [signal.SIGINT]
    if not jax.distributed.is_initialized():
      ours.append(signal.SIGTERM)
    for number in ours:
      self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    # After the last step nobody asks, and what comes next must not start.
    # Grain raises RuntimeError for a worker that has gone.
    if kind in (None, RuntimeError) and self._received:
      self.follow()

  def _receive(self, number: int, frame: object) -> None:
    del frame
    self._received.append(number)
    again = self._previous[number]
    signal.signal(number, again if number == signal.SIGINT else signal.SIG_DFL)
    if jax.distributed.is_initialized():
      os.kill(os.getpid(), signal.SIGTERM)  # The service knows no other.
    _tell(f'{signal.Signals(number).name}: ends once what is done is saved')

  def reached(self) -> bool:
    """Whether to stop after this step; call once after each step.

    Returns:
      The same on all processes.
    """
    if jax.distributed.is_initialized():
      return multihost_utils.reached_preemption_sync_point(next(_ASKED))
    return bool(self._received)

  def follow(self) -> None:
    """Ends the run.

    Raises:
      Interrupted: Always.
    """
    raise Interrupted((self._received or [signal.SIGTERM])[0])


def _tell(text: str) -> None:
  """Writes a line without the log, which the signal may have interrupted.

  What shows it may be gone: the same Ctrl-C ends a `tee` behind a pipe too.
  """
  with contextlib.suppress(AttributeError, OSError, ValueError):
    os.write(sys.stderr.fileno(), f'{text}\n'.encode())
