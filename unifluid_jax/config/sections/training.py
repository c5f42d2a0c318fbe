"""config.training: how UniFluid is trained."""

import dataclasses
import math

from unifluid_jax.config.sections.checkpoint import CheckpointConfig
from unifluid_jax.masking import ORDERS
from unifluid_jax.utils.errors import (
  UserError,
  check_between,
  check_least,
  check_most,
)

BALANCES = ('fixed', 'uncertainty', 'gradnorm')
"""Policies of the loss balance, see `training.balance`."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How UniFluid is trained.

  Attributes:
    steps: Length of the run.
    text_weight: lambda, the weight of the text loss.
    diffusion_batch_mul: Noise levels drawn per image token.
    order: Order of image tokens: 'random', 'raster', or 'anneal', which fades
      from random to raster order. Sampling uses raster order once no random
      order is left, else random order.
    anneal_steps: First step of the fade, and first step without random order;
      for 'anneal' only.
    balance: Policy of the loss balance, see `training.balance`.
    balance_every: Steps between two updates of the loss balance, with
      measurements of the tasks' gradients; 0 for none.
    grad_accum_steps: Microbatches of a step.
    heldout_every: Steps between two measurements of held-out losses, if a
      folder has held-out lines; see `data.heldout`.
    probe_every: Steps between two measurements of how much the prompt lowers
      the image loss, see `training.prompt_probe`; 0 for none.
    log_every: Steps between two lines of the log.
    checkpoint: When to save checkpoints.
    profile: First and last step, numbered from 1, of an XProf trace in the
      run's `profile/`; None for no trace.
  """

  steps: int
  text_weight: float
  diffusion_batch_mul: int = 4
  order: str = 'random'
  anneal_steps: tuple[int, int] | None = None
  balance: str = 'fixed'
  balance_every: int = 0
  grad_accum_steps: int = 1
  heldout_every: int = 100
  probe_every: int = 500
  log_every: int = 50
  checkpoint: CheckpointConfig = CheckpointConfig()
  profile: tuple[int, int] | None = None

  def __post_init__(self):
    counts = (
      'diffusion_batch_mul',
      'grad_accum_steps',
      'heldout_every',
      'log_every',
    )
    check_least('training', self, 1, *counts)
    check_least('training', self, 0, 'steps', 'balance_every', 'probe_every')
    check_most('training', self, 2**12, 'diffusion_batch_mul')
    check_between('training', self, 0, math.inf, 'text_weight')
    if self.balance not in BALANCES:
      raise UserError(
        f'training.balance is {self.balance!r}; it must be one of {BALANCES}'
      )
    if self.balance != 'fixed' and not self.balance_every:
      raise UserError(
        f'training.balance is {self.balance!r}, which needs measurements; set '
        'training.balance_every'
      )
    if self.order not in ORDERS:
      raise UserError(
        f'training.order is {self.order!r}; it must be one of {ORDERS}'
      )
    if (self.order == 'anneal') != (self.anneal_steps is not None):
      raise UserError(
        f'training.order is {self.order!r} and training.anneal_steps is '
        f"{self.anneal_steps}; order 'anneal' needs a first and a last step, "
        'and the other orders need None'
      )
    fade = self.anneal_steps
    if fade is not None and not 0 <= fade[0] < fade[1]:
      raise UserError(
        f'training.anneal_steps is {list(fade)}; it must be two rising steps, '
        'such as (1000, 2000)'
      )
    steps = self.profile
    if steps is not None and not 1 <= steps[0] <= steps[1]:
      raise UserError(
        f'training.profile is {list(steps)}; it must be a first and a last '
        'step, numbered from 1, such as (10, 12)'
      )

  @property
  def raster_fade(self) -> tuple[int, int] | None:
    """First and last step of the fade to raster order, or None."""
    return (0, 0) if self.order == 'raster' else self.anneal_steps
