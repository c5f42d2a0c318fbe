"""Writes checkpoints: Orbax, asynchronous, complete or absent.

A run resumes from the newest complete step, see `weights.checkpoint_reader`.
What is damaged is moved aside by a run that owns the folder.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from unifluid_jax.distributed import processes
from unifluid_jax.training.manager import ArraysSave, Manager
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights import checkpoint_items
from unifluid_jax.weights.checkpoint_manifest import find_damage
from unifluid_jax.weights.checkpoint_reader import (
  CheckpointReader,
  Reasons,
  agreed,
  reason_of,
)
from unifluid_jax.weights.finite_arrays import list_not_finite, not_finite
from unifluid_jax.weights.identity import Identity
from unifluid_jax.weights.incomplete_saves import put_aside, put_damaged_aside


class Checkpoints(CheckpointReader):
  """The checkpoints of one run, to be written and read.

  As a context manager it is open for writing from the beginning, and waits for
  the save under way in the end. Otherwise nothing changes before the first
  save, so that a run can be looked at while it is being trained.
  """

  def __init__(
    self,
    directory: AnyPath,
    keep: int = 1,
    account: Goodput | None = None,
  ):
    """Names the folder.

    Args:
      directory: The folder.
      keep: Newest checkpoints to keep, besides the one with the lowest loss.
      account: Account of the time spent on saving and restoring, if any.
    """
    super().__init__(directory, account)
    self._keep = keep
    self._manager: Manager | None = None

  def __enter__(self) -> 'Checkpoints':
    self._open()
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def save(
    self, step: int, state: Any, identity: Identity, loss: float
  ) -> None:
    """Starts to save; returns when the state may be changed again.

    Raises:
      UserError: This save or the one before could not be written, or the state
        holds numbers that are not finite.
    """
    self.wait()
    manager = self._open()
    # Orbax copies to the host in its own way.
    with self._writing(), jax.transfer_guard('allow'):
      bad = not_finite(state)
      if bad:
        raise UserError(
          f'step {step} is not saved to {self._directory}: '
          f'{list_not_finite(bad)}; lower the learning rate or check the '
          'data. The checkpoints before are unharmed'
        )
      saves = {
        name: ArraysSave(item)
        for name, item in checkpoint_items.divide(state).items()
      }
      saves[checkpoint_items.IDENTITY] = ocp.args.JsonSave(dict(identity))
      try:
        manager.save(
          step, args=ocp.args.Composite(**saves), metrics={'loss': loss}
        )
      except BaseException:
        self._manager = None  # It would wait for this save forever.
        raise

  def wait(self) -> None:
    """Waits for the save under way.

    Raises:
      UserError: It could not be written.
    """
    if self._manager:
      with self._writing():
        while self._manager.is_saving_in_progress():
          self._raise_failure()
          time.sleep(0.01)
        self._manager.wait_until_finished()

  def check(self) -> None:
    """Reports a failed save without waiting for the save under way.

    Raises:
      UserError: It could not be written.
    """
    if self._manager:
      with self._writing():
        self._raise_failure()
        if not self._manager.is_saving_in_progress():
          self._manager.wait_until_finished()

  def _raise_failure(self) -> None:
    if self._manager and self._manager.failure:
      failure, self._manager = self._manager.failure, None
      raise failure

  def put_damaged_aside(
    self, thoroughly: bool = False, may_lose_all: bool = False
  ) -> None:
    """Moves damaged checkpoints out of the folder, which must be this run's.

    To be called by all processes at once.

    Args:
      thoroughly: Whether to read the arrays, too. Without, damage to them is
        only found when they are restored.
      may_lose_all: Whether none needs to be left.

    Raises:
      UserError: All are damaged. They stay where they are.
    """
    damaged: Reasons = {}
    steps = self.steps
    for step in steps:
      reason = find_damage(
        self._directory / str(step),
        (checkpoint_items.STATE, checkpoint_items.TRAINING)
        if thoroughly
        else (),
        (jax.process_index(), jax.process_count()),
      )
      reason = agreed(reason, spread=True)
      if reason:
        damaged[step] = reason
    if damaged and len(damaged) == len(steps) and not may_lose_all:
      raise self._none_whole(damaged)
    self._move_aside(damaged)

  def _leave_behind(self, damaged: Reasons, used: int) -> None:
    """Moves newer checkpoints that are damaged aside, if open for writing."""
    if self._manager:
      self._move_aside(damaged)
    else:
      super()._leave_behind(damaged, used)

  def _move_aside(self, damaged: Reasons) -> None:
    if not damaged:
      return
    with self._writing():
      if processes.is_main():
        put_damaged_aside(self._directory, damaged)
      processes.wait('damaged checkpoints are aside')
      if self._manager:
        self._manager.reload()

  def close(self) -> None:
    """Waits for the save under way and closes the folder."""
    self.wait()
    if self._manager:
      self._manager.close()

  def _open(self) -> Manager:
    """Opens the folder for writing: puts aside what no run can use."""
    if self._manager:
      return self._manager
    # Orbax reads all losses, and would not say which one is damaged.
    self.put_damaged_aside()
    with self._writing():
      if processes.is_main():
        put_aside(self._directory, self.steps)
      self._manager = Manager(self._directory, self._keep)
    return self._manager

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Time spent on saving; a failure that Orbax raises is a `UserError`."""
    try:
      with self._account.spend('save'):
        yield
    except (OSError, ValueError, RuntimeError) as error:
      raise UserError(
        f'cannot write a checkpoint to {self._directory} ({reason_of(error)}); '
        'make room there and start again: the checkpoints before are unharmed'
      ) from error
