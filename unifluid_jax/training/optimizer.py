"""AdamW: learning-rate schedule, clipping, decay mask."""

import dataclasses
import math
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from unifluid_jax.errors import (
  UserError,
  check_between,
  check_least,
  check_pattern,
)
from unifluid_jax.models.parameters import Axes

SCHEDULES = ('constant', 'cosine', 'rsqrt')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW (Loshchilov and Hutter, arXiv 1711.05101) and what surrounds it.

  Attributes:
    learning_rate: Peak learning rate.
    schedule: After the linear warm-up: 'constant', 'cosine' (to 0 at the last
      step) or 'rsqrt' (peak * sqrt(warmup / step)).
    warmup: Steps of linear warm-up.
    b1: First-moment decay.
    b2: Second-moment decay.
    weight_decay: Decay of matrices; vectors, norms and biases have none.
    no_decay: Regular expressions of parameter names that have none either.
    clip: Largest global gradient norm.
    ema: Decay of the parameters' moving average.
    rate_factors: Factors of the learning rate by regular expressions of
      parameter names, of which the first match counts; a pretrained or a small
      encoder wants a lower rate than fresh parts.
  """

  learning_rate: float = 1e-4
  schedule: str = 'constant'
  warmup: int = 0
  b1: float = 0.9
  b2: float = 0.95
  weight_decay: float = 0.02
  no_decay: tuple[str, ...] = ('head/',)
  clip: float = 1.0
  ema: float = 0.9999
  rate_factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_between('optimizer', self, 0, 1, 'b1', 'b2', 'ema')
    rates = ('learning_rate', 'weight_decay')
    check_between('optimizer', self, 0, math.inf, *rates)
    if not self.clip > 0:
      raise UserError(
        f'optimizer.clip is {self.clip}; it must be more than 0, and a large '
        'number to clip nothing'
      )
    check_least('optimizer', self, 0, 'warmup')
    for pattern in (*self.no_decay, *self.rate_factors):
      check_pattern('optimizer.no_decay or rate_factors', pattern)
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


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Learning rate as a function of the step, for a run of `steps` steps."""
  peak, warmup = config.learning_rate, config.warmup
  if config.schedule == 'cosine':
    return optax.warmup_cosine_decay_schedule(
      0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1)
    )
  warm = optax.linear_schedule(0.0, peak, warmup)
  if config.schedule == 'constant':
    after = optax.constant_schedule(peak)
  else:

    def after(step):
      return peak * jnp.sqrt(warmup / jnp.maximum(step + warmup, 1))

  return optax.join_schedules([warm, after], [warmup]) if warmup else after


def is_matrix(name: str, axes: Axes) -> bool:
  """Whether a parameter, or that of one layer, has two axes or more.

  A bias has none of a matrix, however many heads or parts it is for.
  """
  in_layer = [axis for axis in axes if axis != 'layers']
  return len(in_layer) >= 2 and not name.endswith('bias')


def _decays(config: OptimizerConfig, name: str, axes: Axes) -> bool:
  exempt = any(re.search(pattern, name) for pattern in config.no_decay)
  return is_matrix(name, axes) and not exempt


def _rate_factor(config: OptimizerConfig, name: str) -> float:
  factors = (
    factor
    for pattern, factor in config.rate_factors.items()
    if re.search(pattern, name)
  )
  return next(factors, 1.0)


def _scale_rates(factors: dict[str, float]) -> optax.GradientTransformation:
  """Multiplies each parameter's update, decay included, by its factor."""
  return optax.stateless(
    lambda updates, _: {k: factors[k] * update for k, update in updates.items()}
  )


def make_optimizer(
  config: OptimizerConfig, steps: int, axes: dict[str, Axes]
) -> optax.GradientTransformation:
  """The update rule for a flat dictionary of trained parameters.

  Args:
    config: Hyper-parameters.
    steps: Length of the run, for the schedule.
    axes: Logical axes of each trained parameter.
  """
  decay = {name: _decays(config, name, axes[name]) for name in axes}
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(
      make_schedule(config, steps),
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=decay,
    ),
    _scale_rates({name: _rate_factor(config, name) for name in axes}),
  )


def ema_update(
  ema: dict[str, jax.Array],
  params: dict[str, jax.Array],
  step: jax.Array,
  decay: float,
) -> dict[str, jax.Array]:
  """Moving average with warm-up: decay min(decay, (1 + t) / (10 + t)).

  The warm-up lets a short run's average forget the initialisation.
  """
  rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(
    lambda old, new: rate * old + (1 - rate) * new, ema, params
  )
