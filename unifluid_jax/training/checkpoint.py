"""Checkpoints: Orbax, asynchronous, complete or absent.

A checkpoint step holds the training state and an identity: the parts of the
config that fix the meaning of the arrays (model, VAE, tokenizer, seed). A run
resumes from the newest complete step, and refuses one of another identity.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers, checkpoint_utils

from unifluid_jax import processes
from unifluid_jax.errors import UserError, check_least
from unifluid_jax.json_input import parse_json
from unifluid_jax.paths import AnyPath
from unifluid_jax.training.goodput import PROCESS
from unifluid_jax.training.identity import Identity, differences
from unifluid_jax.training.partial import put_aside

ABSENT = ocp.PLACEHOLDER
"""Stands in a state for an array that is not read."""

_PATIENCE = 60
"""Seconds until all processes have to find the same checkpoints."""

_DAMAGED = (OSError, ValueError, KeyError)
"""What reading a damaged checkpoint raises, besides a bare `Exception`."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When checkpoints are made, and which are kept.

  Attributes:
    every: Steps between two saves.
    keep: Newest checkpoints that are kept, besides the one of least loss.
  """

  every: int = 1000
  keep: int = 2

  def __post_init__(self):
    check_least('checkpoint', self, 1, 'every', 'keep')


class _Manager(ocp.CheckpointManager):
  """Leaves preemption to the loop.

  Orbax asks JAX's preemption service of each step that is saved, once more from
  a thread when it is written, steps later. This would set back the count by
  which processes agree on a step to stop after, see `preemption`.
  """

  failure: Exception | None = None
  """What this process could not write. Of several processes, Orbax raises it
  only when the others have waited in vain for this one, ten minutes later."""

  def reached_preemption(self, step: int) -> bool:
    """Not for Orbax to know."""
    return False

  def _wait_for_checkpointers(self) -> None:
    try:
      super()._wait_for_checkpointers()
    except Exception as error:
      self.failure = error
      raise


class Checkpoints:
  """The checkpoints of one run.

  As a context manager it is open for writing from the beginning, and waits for
  the save under way in the end. Otherwise nothing changes before the first
  save, so that a run can be looked at while it is being trained.
  """

  def __init__(self, directory: AnyPath, keep: int = 1):
    """Names the folder.

    Args:
      directory: The folder.
      keep: Newest checkpoints that are kept, besides the one of least loss.
    """
    self._directory = (
      directory if directory.is_absolute() else directory.absolute()
    )
    self._keep = keep
    self._manager: ocp.CheckpointManager | None = None

  def __enter__(self) -> 'Checkpoints':
    self._open()
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  @property
  def steps(self) -> list[int]:
    """The complete steps, oldest first."""
    names = ocp.path.step.standard_name_format()
    return sorted(found.step for found in names.find_all(self._directory))

  @property
  def latest_step(self) -> int | None:
    """Newest complete step, if there is one."""
    return max(self.steps, default=None)

  def save(
    self, step: int, state: Any, identity: Identity, loss: float
  ) -> None:
    """Starts to save; returns when the state may be changed again.

    Raises:
      UserError: This save or the one before could not be written.
    """
    self.wait()
    manager = self._open()
    # Orbax copies to the host in its own way.
    with self._writing(), jax.transfer_guard('allow'):
      manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          identity=ocp.args.JsonSave(dict(identity)),
        ),
        metrics={'loss': loss},
      )

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
    """Does not wait for the save under way, but tells if it has failed.

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

  def restore(self, abstract_state: Any, identity: Identity) -> Any:
    """The newest complete state, laid out as `abstract_state` says.

    Args:
      abstract_state: ShapeDtypeStructs, with shardings; `ABSENT` in the place
        of what is not to be read.
      identity: What the state must have been made by.

    Raises:
      UserError: There is none, it is of another config, or it is damaged.
    """
    arguments = checkpoint_utils.construct_restore_args(abstract_state)
    with PROCESS.spend('restore'):
      return self._read(
        self.newest(identity),
        state=ocp.args.PyTreeRestore(abstract_state, arguments),
      )

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
    told = ', '.join(
      f'process {i} {f"step {n}" if n >= 0 else "none"}'
      for i, n in enumerate(found)
    )
    raise UserError(
      f'of the checkpoints in {self._directory} the newest is not the same to '
      f'all processes: {told}; give all of them one shared --workdir'
    )

  def newest(self, identity: Identity) -> int:
    """The newest complete step.

    Args:
      identity: What its state must have been made by.

    Raises:
      UserError: There is none, it is of another config, or it is damaged.
    """
    step = self.latest_step
    if step is None:
      raise UserError(
        f'{self._directory} holds no complete checkpoint; train first'
      )
    self.check_identity(identity)
    return step

  def check_identity(self, wanted: Identity) -> None:
    """Makes sure that the newest checkpoint, if there is one, is of a config.

    Args:
      wanted: What the state must have been made by.

    Raises:
      UserError: It is of another config, or it is damaged.
    """
    step = self.latest_step
    if step is None:
      return
    found = self._read(step, identity=ocp.args.JsonRestore())
    differing = differences(found, wanted)
    if differing:
      raise UserError(
        f'checkpoint {self._directory / str(step)} is of another config: '
        f'{"; ".join(differing[:5])}. Use the config that it was made with, or '
        'another --workdir'
      )

  def close(self) -> None:
    """Waits for the save under way and closes the folder."""
    self.wait()
    if self._manager:
      self._manager.close()

  def _open(self) -> ocp.CheckpointManager:
    """Opens the folder for writing: puts aside what a kill left there."""
    if self._manager:
      return self._manager
    self._check_losses()
    with self._writing():
      if jax.process_index() == 0:
        put_aside(self._directory, self.steps)
      self._manager = _Manager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          # Without it the losses would not be kept with the checkpoints.
          best_fn=_loss,
          preservation_policy=checkpoint_managers.AnyPreservationPolicy(
            [
              checkpoint_managers.LatestN(self._keep),
              checkpoint_managers.BestN(
                get_metric_fn=_loss,
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
              ),
            ]
          ),
        ),
      )
    return self._manager

  def _check_losses(self) -> None:
    """Orbax reads them all itself, but would not say which one is damaged."""
    for step in self.steps:
      file = self._directory / str(step) / 'metrics' / 'metrics'
      try:
        if file.exists():
          parse_json(file.read_text(encoding='utf-8'))
      except (OSError, ValueError) as error:
        raise self._unreadable(step, error) from error

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Time spent on saving; a failure that Orbax raises is a `UserError`."""
    try:
      with PROCESS.spend('save'):
        yield
    except (OSError, ValueError, RuntimeError) as error:
      raise UserError(
        f'cannot write a checkpoint to {self._directory} ({_reason(error)}); '
        'make room there and start again: the checkpoints before are unharmed'
      ) from error

  def _read(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
    """One item of a checkpoint."""
    (name,) = item
    where = self._directory / str(step)
    try:
      with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(where, args=ocp.args.Composite(**item))[name]
    except Exception as error:
      # Of an array that cannot be read, Orbax raises an `Exception` as such.
      if type(error) is not Exception and not isinstance(error, _DAMAGED):
        raise
      raise self._unreadable(step, error) from error

  def _unreadable(self, step: int, error: Exception) -> UserError:
    older = [other for other in self.steps if other < step]
    mend = f'go on from step {older[-1]}' if older else 'train again'
    return UserError(
      f'checkpoint {self._directory / str(step)} cannot be read '
      f'({_reason(error)}); if it is damaged, move it away to {mend}'
    )


def abstract(tree: Any, shardings: Any) -> Any:
  """Shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding
    ),
    tree,
    shardings,
  )


def _loss(metrics: Mapping[str, float]) -> float:
  return metrics['loss']


def _reason(error: BaseException) -> str:
  """The first line of an error's first cause, without TensorStore's context."""
  while error.__cause__:
    error = error.__cause__
  text = str(error.args[0] if isinstance(error, KeyError) else error).strip()
  line = re.split(r'\n| \[[a-z]', text)[0].rstrip('.')
  return line or type(error).__name__
