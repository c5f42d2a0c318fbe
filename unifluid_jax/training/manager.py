"""Orbax's manager of checkpoints, set up for the training loop."""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers, future

from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights import checkpoint_items, checkpoint_manifest


class _ArraysHandler(ocp.StandardCheckpointHandler):
  """Adds checksums of the arrays that this process has written."""

  async def async_save(self, directory, *args, **kwargs):
    futures = await super().async_save(directory, *args, **kwargs)

    def add_checksums():
      path = directory if isinstance(directory, epath.Path) else directory.path
      checkpoint_manifest.write_part(path, jax.process_index())

    return [future.ChainedFuture(futures or [], add_checksums)]


@ocp.args.register_with_handler(_ArraysHandler, for_save=True, for_restore=True)
class ArraysSave(ocp.args.StandardSave):
  """Arrays to save with checksums; Orbax finds the handler by class."""


class Manager(ocp.CheckpointManager):
  """Writes manifests, and leaves preemption to the loop.

  Orbax asks JAX's preemption service of each step that is saved, once more from
  a thread when it is written, steps later. This would set back the count by
  which processes agree on a step to stop after, see `preemption`.

  Attributes:
    failure: What this process could not write. Of several processes, Orbax
      raises it only when the others have waited in vain for this one, ten
      minutes later.
  """

  failure: Exception | None = None

  def __init__(self, directory: AnyPath, keep: int):
    """Opens the folder for writing.

    Args:
      directory: The folder.
      keep: Newest checkpoints that are kept, besides the one of least loss.
    """
    self._saving = -1
    super().__init__(
      directory,
      item_handlers={
        checkpoint_items.STATE: _ArraysHandler(),
        checkpoint_items.TRAINING: _ArraysHandler(),
        checkpoint_items.IDENTITY: ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        # Without it the losses would not be kept with the checkpoints.
        best_fn=_loss,
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
          [
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(
              get_metric_fn=_loss,
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        async_options=ocp.options.AsyncOptions(
          post_finalization_callback=self._write_manifest
        ),
      ),
    )

  def save(self, step: int, *args: Any, **kwargs: Any) -> bool:
    """As Orbax's; the manifest is written when the rest is."""
    self._saving = step
    return super().save(
      step, *args, custom_metadata=checkpoint_manifest.MARK, **kwargs
    )

  def reached_preemption(self, step: int) -> bool:
    """Not for Orbax to know."""
    return False

  def _write_manifest(self) -> None:
    """In process 0, before the save is committed."""
    final = self.directory / str(self._saving)
    # In a bucket, which cannot rename, the folder has its final name already.
    (folder,) = [*self.directory.glob(f'{final.name}.orbax-*')] or [final]
    checkpoint_manifest.write_manifest(folder)

  def _wait_for_checkpointers(self) -> None:
    try:
      super()._wait_for_checkpointers()
    except Exception as error:
      self.failure = error
      raise


def _loss(metrics: Mapping[str, float]) -> float:
  return metrics['loss']
