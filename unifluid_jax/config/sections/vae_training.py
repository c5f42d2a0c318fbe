"""config.vae_training: how the VAE is trained."""

import dataclasses
import math
from collections.abc import Mapping

from unifluid_jax.config.sections.checkpoint import CheckpointConfig
from unifluid_jax.config.sections.data import SourceConfig
from unifluid_jax.config.sections.optimizer import OptimizerConfig
from unifluid_jax.utils.errors import (
  check_between,
  check_least,
  check_most,
)


@dataclasses.dataclass(frozen=True)
class VAELossConfig:
  """Weights of the loss.

  Attributes:
    kl_weight: Weight of the KL divergence (nats per latent) relative to the
      mean squared error of values in [-1, 1].
  """

  kl_weight: float = 1e-4

  def __post_init__(self):
    check_between('vae_training.loss', self, 0, math.inf, 'kl_weight')


@dataclasses.dataclass(frozen=True)
class VAETrainingConfig:
  """How the VAE is trained.

  Attributes:
    steps: Length of the run.
    batch: Images per step.
    sources: Sources of the images: the targets of tasks that generate images.
    optimizer: Hyper-parameters.
    loss: Weights of the loss.
    log_every: Steps between two lines of the log.
    checkpoint: When to save checkpoints.
    statistics_batches: Batches that the latents' statistics are computed on.
  """

  steps: int
  batch: int
  sources: Mapping[str, SourceConfig]
  optimizer: OptimizerConfig
  loss: VAELossConfig = VAELossConfig()
  log_every: int = 50
  checkpoint: CheckpointConfig = CheckpointConfig()
  statistics_batches: int = 32

  def __post_init__(self):
    counts = ('batch', 'log_every', 'statistics_batches')
    check_least('vae_training', self, 1, *counts)
    check_least('vae_training', self, 0, 'steps')
    check_most('vae_training', self, 2**17, 'batch', 'statistics_batches')
