"""One training step of UniFluid: a pure function of (state, batch).

Every random draw comes from fold_in(key(seed), step) by a named key, so a run
that is killed and resumed repeats it exactly.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from unifluid_jax import masking
from unifluid_jax.batch import Batch
from unifluid_jax.diffusion.objectives import Noise, Objective
from unifluid_jax.models import parameters
from unifluid_jax.models.latents import encode_tokens
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.models.unifluid import sources_of_targets
from unifluid_jax.sharding.gradient_accumulation import sum_over_rows
from unifluid_jax.training import losses as losses_lib
from unifluid_jax.training.balance import Balance, BalanceState
from unifluid_jax.training.optimizer import advance_if_finite, ema_update

_HELDOUT = 2**32 - 1
"""Replaces the step number in the keys of held-out losses."""

_PROBE = 2**32 - 2
"""Replaces the step number in the keys of the prompt probe."""

SHARED = 'gemma/stack/'
"""Prefix of the parameter names that both tasks share: the decoder's layers."""


class TrainState(NamedTuple):
  """The training state, as checkpoints hold it.

  Attributes:
    step: Steps done.
    params: Trained parameters, float32, by name.
    frozen: Parameters of the model that are not trained, by name.
    vae: The VAE's parameters and latent statistics, by name.
    opt_state: State of the optimizer.
    ema: Exponential moving average of `params`.
    balance: State of the loss balance.
    bad_step: First step with a non-finite loss or gradient, else -1.
  """

  step: Int[Array, '']
  params: Parameters
  frozen: Parameters
  vae: Parameters
  opt_state: optax.OptState
  ema: Parameters
  balance: BalanceState
  bad_step: Int[Array, '']


@dataclasses.dataclass(frozen=True)
class StepContext:
  """Constants of a run that a step needs.

  Attributes:
    graphdef: Structure of UniFluid.
    vae_graphdef: Structure of the VAE.
    objective: Diffusion objective of the image tokens.
    optimizer: Update rule of the trained parameters.
    balance: Policy of the loss balance.
    text_weight: lambda.
    diffusion_batch_mul: Noise levels per image token.
    image_tokens: N, tokens of a generated image.
    token_dim: Z, dimensions of a token.
    patch: Side of the group of latents that makes a token.
    raster_fade: Steps over which random order fades to raster, or None.
    grad_accum_steps: Microbatches of a step.
    ema: Decay of the moving average.
    seed: Seed of the run.
  """

  graphdef: nnx.GraphDef
  vae_graphdef: nnx.GraphDef
  objective: Objective
  optimizer: optax.GradientTransformation
  balance: Balance
  text_weight: float
  diffusion_batch_mul: int
  image_tokens: int
  token_dim: int
  patch: int
  raster_fade: tuple[int, int] | None
  grad_accum_steps: int
  ema: float
  seed: int


class _Inputs(NamedTuple):
  """A batch with all its random draws."""

  batch: Batch
  tokens: Float[Array, 'B G N Z']
  order: masking.Order
  sources: Float[Array, 'B G N Z'] | None
  noise: Noise


def _key(context: StepContext, step: Int[Array, ''] | int) -> PRNGKeyArray:
  """Returns the key of a step."""
  return jax.random.fold_in(jax.random.key(context.seed), step)


def _draw_inputs(
  context: StepContext, state: TrainState, batch: Batch, key: PRNGKeyArray
) -> _Inputs:
  """Draws order, latents and noise, independent of mesh and microbatches."""
  input_key, noise_key = jax.random.split(key)
  order_key, posterior_key = jax.random.split(input_key)
  rows, images = batch.generated_slots.shape
  vae = parameters.unflatten(context.vae_graphdef, state.vae)
  tokens = jnp.zeros((rows, 0, context.image_tokens, context.token_dim))
  if images:
    tokens = encode_tokens(
      vae, batch.generated_images, context.patch, posterior_key
    )
  sources = None
  if batch.source_slots.shape[1]:
    sources = sources_of_targets(
      batch, encode_tokens(vae, batch.source_images, context.patch)
    )
  order = masking.draw_order(
    order_key,
    rows,
    images,
    context.image_tokens,
    masking.random_share(state.step, context.raster_fade),
  )
  noise = context.objective.draw(
    noise_key,
    context.diffusion_batch_mul * math.prod(tokens.shape[:-1]),
    context.token_dim,
  )
  noise = jax.tree.map(lambda x: x.reshape(rows, -1, *x.shape[1:]), noise)
  return jax.lax.stop_gradient(_Inputs(batch, tokens, order, sources, noise))


def _gradients(
  context: StepContext,
  state: TrainState,
  inputs: _Inputs,
  weights: Float[Array, '2'],
) -> tuple[Parameters, losses_lib.Losses]:
  """Computes the gradient of the weighted loss, and both losses."""
  model = parameters.unflatten(
    context.graphdef, {**state.params, **state.frozen}
  )
  counts = losses_lib.count_targets(model, inputs.batch, inputs.order)

  def weighted(params, frozen, counts, weights, part: _Inputs):
    both = _losses(context, params, frozen, counts, part)
    return weights[0] * both.image + weights[1] * both.text, both

  gradient = jax.grad(weighted, has_aux=True)
  return sum_over_rows(gradient, context.grad_accum_steps)(
    state.params, state.frozen, counts, weights, inputs
  )


def _losses(
  context: StepContext,
  params: Parameters,
  frozen: Parameters,
  counts: losses_lib.Counts,
  part: _Inputs,
) -> losses_lib.Losses:
  """Computes both losses of a microbatch, divided by the batch's counts."""
  return losses_lib.losses(
    parameters.unflatten(context.graphdef, {**params, **frozen}),
    context.objective,
    part.batch,
    part.tokens,
    part.order,
    part.sources,
    part.noise,
    counts,
  )


def task_weights(
  context: StepContext, balance: BalanceState
) -> Float[Array, '2']:
  """Returns the weights of both losses; lambda multiplies the text weight."""
  return balance.weights * jnp.array([1.0, context.text_weight])


def make_train_step(
  context: StepContext,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
  """Returns the step: (state, batch) -> (state, metrics), to be jitted.

  A step with a non-finite loss or gradient changes only the step count and
  `bad_step`.
  """

  def train_step(state, batch):
    inputs = _draw_inputs(context, state, batch, _key(context, state.step))
    weights = task_weights(context, state.balance)
    gradient, both = _gradients(context, state, inputs, weights)
    norm = optax.global_norm(gradient)
    updates, opt_state = context.optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    loss = weights[0] * both.image + weights[1] * both.text
    advanced = state._replace(
      params=params,
      opt_state=opt_state,
      ema=ema_update(state.ema, params, state.step, context.ema),
    )
    metrics = {
      'loss': loss,
      'loss_image': both.image,
      'loss_text': both.text,
      'gradient_norm': norm,
      'text_weight': weights[1] / weights[0],
      **_count(batch),
    }
    return advance_if_finite(state, advanced, loss, norm), metrics

  return train_step


def _count(batch: Batch) -> dict[str, Array]:
  """Counts the examples and the images of a batch."""
  images = (batch.understanding_slots, batch.generated_slots)
  return {
    'examples': jnp.float32(batch.segment_ids.max(-1).sum()),
    'images': jnp.float32(sum((slots >= 0).sum() for slots in images)),
  }


def make_balance_step(
  context: StepContext,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
  """Returns a function that measures task gradients and updates the balance.

  Jit it and run it at an interval. Metrics are the norms of the unweighted
  losses' gradients in the shared decoder layers, and the cosine between them.
  """

  def balance_step(state, batch):
    inputs = _draw_inputs(context, state, batch, _key(context, state.step))
    pairs = [
      _gradients(context, state, inputs, jnp.array(one))
      for one in ((1.0, 0.0), (0.0, 1.0))
    ]
    shared = [
      {name: g for name, g in gradient.items() if name.startswith(SHARED)}
      for gradient, _ in pairs
    ]
    norms = jnp.stack([optax.global_norm(gradient) for gradient in shared])
    dot = optax.tree.vdot(*shared)
    both = jnp.stack(pairs[0][1])
    balance = context.balance.update(state.balance, both, norms)
    metrics = {
      'gradient_norm_image': norms[0],
      'gradient_norm_text': norms[1],
      'gradient_cosine': dot / jnp.maximum(norms[0] * norms[1], 1e-12),
    }
    return state._replace(balance=balance), metrics

  return balance_step


def make_heldout_step(
  context: StepContext,
) -> Callable[
  [TrainState, Batch, Int[Array, '']],
  tuple[losses_lib.Losses, losses_lib.Counts],
]:
  """Returns a function that measures losses without an update, to be jitted.

  The noise is a function of the batch's number alone, so measurements at
  different steps differ in the parameters only.

  Returns:
    (state, batch, number of the batch) -> (mean losses, counts of targets).
  """

  def heldout_step(state, batch, number):
    key = jax.random.fold_in(_key(context, _HELDOUT), number)
    inputs = _draw_inputs(context, state, batch, key)
    model = parameters.unflatten(
      context.graphdef, {**state.params, **state.frozen}
    )
    counts = losses_lib.count_targets(model, inputs.batch, inputs.order)

    def of_rows(params, frozen, counts, part: _Inputs):
      return _losses(context, params, frozen, counts, part)

    losses = sum_over_rows(of_rows, context.grad_accum_steps)(
      state.params, state.frozen, counts, inputs
    )
    return losses, counts

  return heldout_step


def make_probe_step(
  context: StepContext,
) -> Callable[[TrainState, Batch, Int[Array, '']], Float[Array, '2 N']]:
  """Returns a function that measures image losses by decoding rank.

  Each row holds one generated image.

  As in `make_heldout_step`, the noise is a function of the batch's number.

  Returns:
    (state, batch, number of the batch) -> sums of the losses of the tokens of
    each rank (each position in raster order if decoding is masked), and counts.
  """

  def probe_step(state, batch, number):
    key = jax.random.fold_in(_key(context, _PROBE), number)
    inputs = _draw_inputs(context, state, batch, key)
    model = parameters.unflatten(
      context.graphdef, {**state.params, **state.frozen}
    )
    hidden = model.row_hidden_states(
      batch, inputs.tokens, inputs.order, inputs.sources
    )
    targets = model.image_targets(
      hidden, batch, inputs.tokens, inputs.order, inputs.sources
    )
    losses = losses_lib.image_losses(
      model, context.objective, targets, inputs.noise
    )
    weights = targets.weights
    return jnp.stack([(losses.mean(-1) * weights).sum(0), weights.sum(0)])

  return probe_step
