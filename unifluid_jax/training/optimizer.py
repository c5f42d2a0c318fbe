"""AdamW or Muon: learning-rate schedule, clipping, decay mask."""

import re
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import contrib

from unifluid_jax.config.sections.optimizer import OptimizerConfig
from unifluid_jax.models.parameters import is_matrix
from unifluid_jax.sharding.logical_axes import Axes

S = TypeVar('S', bound=Any)

_ADAM_RMS = 0.2
"""Root mean square of Muon's updates at a rate of 1: that of AdamW's, so that
one rate suits both (Liu et al., arXiv 2502.16982, section 2.2)."""


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


def _decays(config: OptimizerConfig, name: str, axes: Axes) -> bool:
  exempt = any(re.search(pattern, name) for pattern in config.no_decay)
  return is_matrix(name, axes) and not exempt


def _rate_factor(config: OptimizerConfig, name: str) -> float:
  factors = (
    factor
    for pattern, factor in config.lr_multipliers.items()
    if re.search(pattern, name)
  )
  return next(factors, 1.0)


def _scale_rates(factors: dict[str, float]) -> optax.GradientTransformation:
  """Multiplies each parameter's update, decay included, by its factor."""
  return optax.stateless(
    lambda updates, _: {k: factors[k] * update for k, update in updates.items()}
  )


def _like(params: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
  """The values of parameters, of which `optax.partition` masks some out."""
  return {
    name: leaf if isinstance(leaf, optax.MaskedNode) else values[name]
    for name, leaf in params.items()
  }


def _muon_axes(name: str, axes: Axes) -> contrib.MuonDimensionNumbers | None:
  """Which axes of a parameter make the matrix that Muon orthogonalizes.

  Matrices of transformer blocks only: embeddings, the first and the last
  layers, vectors, and the diffusion head stay with AdamW (Jordan et al., 2024).
  Layers, and projections fused into one array, which have no logical name, are
  matrices of their own.

  Returns:
    The axes, or None if the parameter is no such matrix.
  """
  named = [i for i, axis in enumerate(axes) if axis not in ('layers', None)]
  if '/stack/' not in name or not is_matrix(name, axes):
    return None
  inputs = 1 if axes[named[0]] == 'embed' else len(named) - 1
  return contrib.MuonDimensionNumbers(
    reduction_axis=tuple(named[:inputs]), output_axis=tuple(named[inputs:])
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
  schedule = make_schedule(config, steps)
  decay = {name: _decays(config, name, axes[name]) for name in axes}
  rule = optax.adamw(
    schedule,
    b1=config.b1,
    b2=config.b2,
    weight_decay=config.weight_decay,
    mask=lambda params: _like(params, decay),
  )
  if config.rule == 'muon':
    matrices = {name: _muon_axes(name, axes[name]) for name in axes}
    muon = contrib.muon(
      schedule,
      beta=config.muon_momentum,
      weight_decay=config.weight_decay,
      weight_decay_mask=lambda params: _like(params, decay),
      muon_weight_dimension_numbers=lambda params: _like(params, matrices),
      consistent_rms=_ADAM_RMS,
    )
    rule = optax.partition(
      {'muon': muon, 'adamw': rule},
      {name: 'muon' if matrices[name] else 'adamw' for name in axes},
    )
  return optax.chain(
    optax.clip_by_global_norm(config.grad_clip_norm),
    rule,
    _scale_rates({name: _rate_factor(config, name) for name in axes}),
  )


def ema_update(
  ema: dict[str, jax.Array],
  params: dict[str, jax.Array],
  step: jax.Array,
  decay: float,
) -> dict[str, jax.Array]:
  """Moving average with warm-up: decay min(decay, (1 + t) / (10 + t)).

  The warm-up lets a short run's average forget the initialization.
  """
  rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(
    lambda old, new: rate * old + (1 - rate) * new, ema, params
  )


def advance_if_finite(
  state: S, advanced: S, loss: Float[Array, ''], norm: Float[Array, '']
) -> S:
  """Ends a step: keeps the old state if the loss or gradient is not finite.

  Args:
    state: The state before the step.
    advanced: The state with updated parameters.
    loss: Loss of the step.
    norm: Gradient norm of the step.

  Returns:
    One of both states, with the step counted. `bad_step` is the first step that
    was not finite; the loop stops the run for it before it saves or logs.
  """
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  kept = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old), advanced, state
  )
  bad_step = jnp.where(
    finite | (state.bad_step >= 0), state.bad_step, state.step
  )
  return kept._replace(step=state.step + 1, bad_step=bad_step)
