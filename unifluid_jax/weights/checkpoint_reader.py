"""Reads checkpoints, and nothing that is damaged.

A checkpoint step holds a training state and an identity: the parts of the
config that fix the meaning of the arrays (model, VAE, tokenizer, seed). A
reader takes the newest complete step, and refuses one of another identity.

Everything that is read is checked against a manifest of checksums first. If a
step does not match it, the step before is taken.
"""

import re
import time
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights import checkpoint_items
from unifluid_jax.weights.checkpoint_manifest import find_damage, is_old
from unifluid_jax.weights.finite_arrays import list_not_finite, not_finite
from unifluid_jax.weights.identity import Identity, differences

_PATIENCE = 60
"""Seconds until all processes have to find the same checkpoints."""

Reasons = dict[int, str]
"""What is wrong with each step that is damaged."""


class CheckpointReader:
  """The checkpoints of one run, to be read.

  Nothing in the folder is changed, so that a run can be looked at while it is
  being trained.
  """

  def __init__(self, directory: AnyPath, account: Goodput | None = None):
    """Names the folder.

    Args:
      directory: The folder.
      account: Account of the time spent on restoring, if any.
    """
    self._account = account or Goodput()
    self._directory = (
      directory if directory.is_absolute() else directory.absolute()
    )

  @property
  def steps(self) -> list[int]:
    """The complete steps, oldest first."""
    names = ocp.path.step.standard_name_format()
    return sorted(found.step for found in names.find_all(self._directory))

  @property
  def latest_step(self) -> int | None:
    """Newest complete step, if there is one."""
    return max(self.steps, default=None)

  def restore(
    self, abstract_state: Any, identity: Identity, older: bool = True
  ) -> Any:
    """The newest state that is complete and undamaged.

    Where arrays are spread over processes, these choose the same step.

    Args:
      abstract_state: ShapeDtypeStructs, with shardings. A named tuple may do
        without the fields that only training needs, which are not read then.
      identity: What the state must have been made by.
      older: Whether to take an older one if the newest is damaged.

    Raises:
      UserError: No checkpoint is complete and undamaged, or it is of another
        config.
    """
    damaged: Reasons = {}
    spread = _is_spread(abstract_state)
    with self._account.spend('restore'):
      while True:
        step = self._newest_but(damaged, spread)
        state, reason = self._restore(step, abstract_state, identity, spread)
        if reason is None:
          break
        damaged[step] = reason
        if not older:
          raise self._none_whole(damaged)
      self._leave_behind(damaged, step)
    return state

  def _newest_but(self, damaged: Reasons, spread: bool = False) -> int:
    """The newest step that is not known to be damaged.

    Raises:
      UserError: No checkpoint is left.
    """
    step = max((s for s in self.steps if s not in damaged), default=-1)
    if spread:
      # The oldest of what the processes find is there for all of them.
      step = min(processes.gather(step))
    if step >= 0:
      return step
    if damaged:
      raise self._none_whole(damaged)
    raise UserError(
      f'{self._directory} holds no complete checkpoint; train first'
    )

  def _restore(
    self, step: int, abstract_state: Any, identity: Identity, spread: bool
  ) -> tuple[Any, str | None]:
    """A state, or the reason why it cannot be used.

    Raises:
      UserError: It is of another config.
    """
    folder = self._directory / str(step)
    names = checkpoint_items.divide(abstract_state)
    share = (0, 1)
    if spread:
      share = (jax.process_index(), jax.process_count())
    reason = agreed(find_damage(folder, names, share), spread)
    if reason:
      return None, reason
    self._check_identity(step, identity)
    old, state = is_old(folder), None
    expected = (
      checkpoint_items.UNREADABLE_UNCHECKED
      if old
      else checkpoint_items.UNREADABLE
    )
    try:
      state = checkpoint_items.read_state(folder, abstract_state, whole=old)
    except Exception as error:
      # Of an array that cannot be read, Orbax raises an `Exception` as such.
      if type(error) is not Exception and not isinstance(error, expected):
        raise
      reason = reason_of(error)
    reason = agreed(reason, spread)
    if reason and not old:
      raise UserError(
        f'checkpoint {folder} cannot be read ({reason}), though its files are '
        'undamaged; use the version of unifluid_jax that made it, or another '
        '--workdir'
      )
    if reason is None and old:
      # Of others, nothing was written that is not finite.
      bad = not_finite(state)
      reason = list_not_finite(bad) if bad else None
    if reason is None and old and processes.is_main():
      logging.warning(
        '%s was saved without checksums: damage may go unnoticed', folder
      )
    return state, reason

  def agree(self) -> None:
    """Returns when all processes find the same newest step.

    Of disks that machines share, some show late what another has written.

    Raises:
      UserError: They do not within a minute.
    """
    for _ in range(_PATIENCE):
      step = self.latest_step
      found = processes.gather(-1 if step is None else step)
      if len({*found}) == 1:
        return
      time.sleep(1)
    steps = ', '.join(
      f'process {i} {f"step {n}" if n >= 0 else "none"}'
      for i, n in enumerate(found)
    )
    raise UserError(
      f'of the checkpoints in {self._directory} the newest is not the same to '
      f'all processes: {steps}; give all of them one shared --workdir'
    )

  def newest(self, identity: Identity) -> int:
    """The newest complete step, without those seen to be damaged at a glance.

    Args:
      identity: What its state must have been made by.

    Raises:
      UserError: No checkpoint is complete and undamaged, or it is of another
        config.
    """
    damaged: Reasons = {}
    while True:
      step = self._newest_but(damaged)
      reason = find_damage(self._directory / str(step))
      if reason is None:
        self._check_identity(step, identity)
        return step
      damaged[step] = reason

  def check_identity(self, wanted: Identity) -> None:
    """Checks that the newest checkpoint, if there is one, is of a config.

    Args:
      wanted: What the state must have been made by.

    Raises:
      UserError: It is of another config, or all are damaged.
    """
    if self.steps:
      self.newest(wanted)

  def _leave_behind(self, damaged: Reasons, used: int) -> None:
    """Makes known that newer checkpoints are not used."""
    for step, reason in damaged.items() if processes.is_main() else ():
      logging.warning(
        'checkpoint %s is damaged (%s); step %d is used instead',
        self._directory / str(step),
        reason,
        used,
      )

  def _check_identity(self, step: int, wanted: Identity) -> None:
    folder = self._directory / str(step)
    differing = differences(checkpoint_items.read_identity(folder), wanted)
    if differing:
      raise UserError(
        f'checkpoint {folder} was made with another config: '
        f'{"; ".join(differing[:5])}. Use the config that it was made with, or '
        'another --workdir'
      )

  def _none_whole(self, damaged: Reasons) -> UserError:
    reasons = '; '.join(
      f'step {step} ({reason})' for step, reason in sorted(damaged.items())
    )
    return UserError(
      f'{self._directory} holds no checkpoint that can be used. Damaged: '
      f'{reasons}. Copy it from a backup, or move it away to train again'
    )


def _is_spread(tree: Any) -> bool:
  """Whether arrays lie on devices of several processes."""
  shardings = [leaf.sharding for leaf in jax.tree.leaves(tree)]
  return not all(s is None or s.is_fully_addressable for s in shardings)


def agreed(reason: str | None, spread: bool) -> str | None:
  """Shares a problem of one process with all processes."""
  if not spread:
    return reason
  failed = [i for i, bad in enumerate(processes.gather(bool(reason))) if bad]
  return reason or (f'as process {failed[0]} finds' if failed else None)


def reason_of(error: BaseException) -> str:
  """The first line of an error's first cause, without TensorStore's context."""
  while error.__cause__:
    error = error.__cause__
  text = str(error.args[0] if isinstance(error, KeyError) else error).strip()
  line = re.split(r'\n| \[[a-z]', text)[0].rstrip('.')
  return line or type(error).__name__
