"""config.training.checkpoint and config.vae_training.checkpoint."""

import dataclasses

from unifluid_jax.utils.errors import (
  check_least,
)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When to save checkpoints, and which to keep.

  Attributes:
    every: Steps between two saves.
    keep: Newest checkpoints to keep, besides the one with the lowest loss.
  """

  every: int = 1000
  keep: int = 2

  def __post_init__(self):
    check_least('checkpoint', self, 1, 'every', 'keep')
