"""config.training.checkpoint and config.vae_training.checkpoint."""

import dataclasses

from unifluid_jax.utils.errors import (
  check_least,
)


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
