"""Requests to stop: SIGTERM (a preemption, `tpu_vm.sh stop`) and SIGINT.

A request reaches the end of a step, where the loop saves and ends. Several
processes must end after the same step, whichever of them got the signal: JAX's
preemption service tells the others, and agrees with them on a step that none
has reached yet (Orbax's `reached_preemption` asks the same service). It listens
for SIGTERM from `jax.distributed.initialize` on.
"""

import itertools
import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

_ASKED = itertools.count()
"""How often this process asked. Unlike steps, which begin anew where a process
trains a VAE and then UniFluid, it passes every number once."""


class Interrupted(Exception):
  """A request to stop was followed: the state has been saved."""

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.number = number


class StopRequest:
  """Collects the signals, as a context manager, instead of dying of them.

  A second signal of the same kind kills at once, except for SIGTERM of several
  processes, which is the preemption service's.
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

  def __exit__(self, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _receive(self, number: int, frame: object) -> None:
    del frame
    self._received.append(number)
    signal.signal(number, self._previous[number])
    if jax.distributed.is_initialized():
      os.kill(os.getpid(), signal.SIGTERM)  # The service knows no other.

  def reached(self) -> bool:
    """Whether to stop after this step; to be asked once after each step.

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
