"""Checkpoints: Orbax, asynchronous, complete or absent.

A checkpoint step holds the training state and an identity: the parts of the
config that fix the meaning of the arrays (model, VAE, tokenizer, seed). A run
resumes from the newest complete step, and refuses one of another identity.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from unifluid_jax.errors import UserError

Identity = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When checkpoints are made, and which are kept.

  Attributes:
    every: Steps between two saves.
    keep: Newest checkpoints that are kept, besides the one of least loss.
  """

  every: int = 1000
  keep: int = 2


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, directory: pathlib.Path, keep: int = 1):
    """Opens or makes the folder of checkpoints.

    Args:
      directory: The folder.
      keep: Newest checkpoints that are kept, besides the one of least loss.
    """
    policies = checkpoint_managers
    self._directory = directory.absolute()
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(keep),
            policies.BestN(
              get_metric_fn=lambda metrics: metrics['loss'],
              reverse=True,
              n=1,
            ),
          ]
        ),
        cleanup_tmp_directories=True,
      ),
    )

  @property
  def latest_step(self) -> int | None:
    """Newest complete step, if there is one."""
    return self._manager.latest_step()

  def save(
    self, step: int, state: Any, identity: Identity, loss: float
  ) -> None:
    """Starts to save; returns when the state may be changed again.

    Raises:
      UserError: This save or the one before could not be written.
    """
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          identity=ocp.args.JsonSave(dict(identity)),
        ),
        metrics={'loss': loss},
      )
    except (OSError, ValueError, RuntimeError) as error:
      raise self._failed(error) from error

  def wait(self) -> None:
    """Waits for the save under way.

    Raises:
      UserError: It could not be written.
    """
    try:
      self._manager.wait_until_finished()
    except (OSError, ValueError, RuntimeError) as error:
      raise self._failed(error) from error

  def restore(self, abstract_state: Any, identity: Identity) -> Any:
    """The newest complete state, laid out as `abstract_state` says.

    Args:
      abstract_state: ShapeDtypeStructs, with shardings.
      identity: What the state must have been made by.

    Raises:
      UserError: There is none, it is of another config, or it is damaged.
    """
    step = self.latest_step
    if step is None:
      raise UserError(f'{self._directory} holds no complete checkpoint')
    where = self._directory / str(step)
    try:
      self._check_identity(where, self._read_identity(step), identity)
      return self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state)),
      )['state']
    except (OSError, ValueError, KeyError) as error:
      raise UserError(
        f'checkpoint {where} cannot be read ({_first_line(error)}); move it '
        'away to go on from the one before'
      ) from error

  def close(self) -> None:
    """Waits for the save under way and closes the folder."""
    self.wait()
    self._manager.close()

  def _read_identity(self, step: int) -> Identity:
    restored = self._manager.restore(
      step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
    )
    return restored['identity']

  def _check_identity(
    self, where: pathlib.Path, found: Identity, wanted: Identity
  ) -> None:
    differing = _differences(found, wanted)
    if differing:
      raise UserError(
        f'checkpoint {where} is of another config: {"; ".join(differing[:5])}. '
        'Use the config that it was made with, or another --workdir'
      )

  def _failed(self, error: Exception) -> UserError:
    return UserError(
      f'cannot write a checkpoint to {self._directory}: {_first_line(error)}. '
      'Make room there and start again; the checkpoints before are unharmed'
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


def _differences(found: Any, wanted: Any, path: str = '') -> list[str]:
  if isinstance(found, Mapping) and isinstance(wanted, Mapping):
    keys = sorted({*found, *wanted})
    pairs = [(k, found.get(k), wanted.get(k)) for k in keys]
    return [
      line
      for key, a, b in pairs
      for line in _differences(a, b, f'{path}.{key}' if path else key)
    ]
  same = found == wanted
  return [] if same else [f'{path} is {found!r} there and {wanted!r} here']


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__
