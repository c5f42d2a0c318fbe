"""config.optimizer and config.vae_training.optimizer: the update rule."""

import dataclasses
import math
from collections.abc import Mapping

from unifluid_jax.utils.errors import (
  UserError,
  check_between,
  check_least,
  check_pattern,
)

RULES = ('adamw', 'muon')
"""Update rules, see `training.optimizer`."""

SCHEDULES = ('constant', 'cosine', 'rsqrt')
"""Courses of the learning rate after the warm-up, see `training.optimizer`."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The update rule and what surrounds it.

  Attributes:
    rule: 'adamw' (Loshchilov and Hutter, arXiv 1711.05101), or 'muon' (Jordan
      et al., 2024; arXiv 2502.16982) for the matrices of transformer blocks and
      AdamW for all else.
    learning_rate: Peak learning rate.
    schedule: After the linear warm-up: 'constant', 'cosine' (to 0 at the last
      step) or 'rsqrt' (peak * sqrt(warmup / step)).
    warmup: Steps of linear warm-up.
    b1: First-moment decay.
    b2: Second-moment decay.
    muon_momentum: Momentum of Muon.
    weight_decay: Decay of matrices; vectors, norms and biases have none.
    no_decay: Regular expressions of parameter names that have none either.
    grad_clip_norm: Largest global gradient norm.
    ema: Decay of the parameters' moving average.
    lr_multipliers: Factors of the learning rate by regular expressions of
      parameter names, of which the first match counts; a pretrained or a small
      encoder wants a lower rate than fresh parts.
  """

  rule: str = 'adamw'
  learning_rate: float = 1e-4
  schedule: str = 'constant'
  warmup: int = 0
  b1: float = 0.9
  b2: float = 0.95
  muon_momentum: float = 0.95
  weight_decay: float = 0.02
  no_decay: tuple[str, ...] = ('head/',)
  grad_clip_norm: float = 1.0
  ema: float = 0.9999
  lr_multipliers: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_between('optimizer', self, 0, 1, 'b1', 'b2', 'muon_momentum', 'ema')
    rates = ('learning_rate', 'weight_decay')
    check_between('optimizer', self, 0, math.inf, *rates)
    if not self.grad_clip_norm > 0:
      raise UserError(
        f'optimizer.grad_clip_norm is {self.grad_clip_norm}; it must be more '
        'than 0, and a large number to clip nothing'
      )
    check_least('optimizer', self, 0, 'warmup')
    for pattern in (*self.no_decay, *self.lr_multipliers):
      check_pattern('optimizer.no_decay or lr_multipliers', pattern)
    if self.rule not in RULES:
      raise UserError(
        f'optimizer.rule is {self.rule!r}; it must be one of {RULES}'
      )
    if self.schedule not in SCHEDULES:
      raise UserError(
        f'optimizer.schedule is {self.schedule!r}; it must be one of '
        f'{SCHEDULES}'
      )
    if self.schedule == 'rsqrt' and not self.warmup:
      raise UserError(
        "optimizer.schedule 'rsqrt' falls from the end of the warm-up on: set "
        'optimizer.warmup'
      )
