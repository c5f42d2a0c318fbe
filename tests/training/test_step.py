"""The training step: what it moves, what it repeats, when it stops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests import tiny
from unifluid_jax.diffusion.objectives import Flow
from unifluid_jax.models import parameters
from unifluid_jax.models.vae import VAE, VAEConfig
from unifluid_jax.training.balance import initial_state, make_balance
from unifluid_jax.training.step import (
  StepContext,
  TrainState,
  make_balance_step,
  make_heldout_step,
  make_train_step,
)

# One latent of 3 x 3 pixels a token, a 3 x 3 grid of them.
VAE_CONFIG = VAEConfig(
  latent_channels=6,
  widths=(8,),
  encoder_blocks=1,
  decoder_blocks=1,
  groups=4,
  patch_size=3,
  mid_attention=False,
)


@functools.cache
def make_vae() -> VAE:
  return nnx.jit(lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)))()


def context_of(optimizer, **changes) -> StepContext:
  context = StepContext(
    graphdef=nnx.graphdef(tiny.make_model()),
    vae_graphdef=nnx.graphdef(make_vae()),
    objective=Flow(),
    optimizer=optimizer,
    balance=make_balance('fixed'),
    text_weight=0.5,
    diffusion_batch_mul=2,
    image_tokens=tiny.TOKENS,
    token_dim=tiny.IMAGE_TOKENS.dim,
    patch=1,
    raster_fade=None,
    grad_accum_steps=1,
    ema=0.9,
    seed=0,
  )
  return dataclasses.replace(context, **changes)


@pytest.fixture(scope='module')
def sgd():
  """A step and the state it starts from."""
  context = context_of(optax.sgd(0.1))
  return jax.jit(make_train_step(context)), state_of(context)


def state_of(context, frozen=()) -> TrainState:
  _, flat = parameters.flatten(tiny.make_model())
  _, vae = parameters.flatten(make_vae())
  params = {k: v for k, v in flat.items() if not k.startswith(frozen)}
  return TrainState(
    step=jnp.int32(0),
    params=params,
    frozen={k: v for k, v in flat.items() if k not in params},
    vae=vae,
    opt_state=context.optimizer.init(params),
    ema=params,
    balance=initial_state(),
    bad_step=jnp.int32(-1),
  )


@pytest.fixture(scope='module')
def batch(letters):
  """The examples in 4 rows, images of 9 pixels for a grid of 3 latents."""
  packed = tiny.batch(letters, rows=4)
  shape = (*packed.generated_images.shape[:2], 9, 9, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  sources = jnp.asarray(images[:, :1])
  return packed._replace(
    generated_images=jnp.asarray(images), source_images=sources
  )


def test_one_step_moves_every_trained_parameter_and_no_frozen_one(batch):
  context = context_of(optax.adam(1e-3))
  state = state_of(context, frozen=('encoder/',))
  after, metrics = jax.jit(make_train_step(context))(state, batch)
  assert after.frozen and after.step == 1 and after.bad_step == -1
  still = [
    name
    for name, value in state.params.items()
    if (after.params[name] == value).all()
  ]
  assert not still
  for name, value in state.frozen.items():
    assert (after.frozen[name] == value).all(), name
  for name, value in state.vae.items():
    assert (after.vae[name] == value).all(), name
  expected = metrics['loss_image'] + 0.5 * metrics['loss_text']
  np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-6)
  rate = 1 / 10  # EMA warm-up: (1 + 0) / (10 + 0)
  for name, value in after.ema.items():
    mean = rate * state.ema[name] + (1 - rate) * after.params[name]
    np.testing.assert_allclose(value, mean, atol=1e-6)


def test_what_found_room_is_counted(sgd, batch):
  step, state = sgd
  segments, kinds = np.asarray(batch.segment_ids), np.asarray(batch.kind)
  empty = batch._replace(
    segment_ids=batch.segment_ids.at[-1].set(0),
    understanding_slots=batch.understanding_slots.at[-1].set(-1),
    generated_slots=batch.generated_slots.at[-1].set(-1),
  )
  for rows, given in ((4, batch), (3, empty)):
    _, metrics = step(state, given)
    present = [set(row[row > 0]) for row in segments[:rows]]
    assert metrics['examples'] == sum(map(len, present))
    slots = [(kinds[:rows] == kind).sum() for kind in (2, 3)]
    encoder = tiny.LAYOUT.understanding_tokens
    images = slots[0] / encoder + slots[1] / tiny.TOKENS
    assert metrics['images'] == images


def test_a_step_is_a_function_of_state_and_batch(sgd, batch):
  step, state = sgd
  first, _ = step(state, batch)
  again, _ = step(state, batch)
  other, _ = step(state._replace(step=jnp.int32(5)), batch)
  name = 'token_in'
  assert (first.params[name] == again.params[name]).all()
  assert (first.params[name] != other.params[name]).any()


def test_gradients_accumulate_to_those_of_the_whole_batch(batch):
  """Noise is drawn before rows are split, so that it stays the same."""
  results = []
  for parts in (1, 2, 4):
    context = context_of(optax.sgd(1.0), grad_accum_steps=parts)
    state, metrics = jax.jit(make_train_step(context))(state_of(context), batch)
    results.append((state.params, metrics))
  for params, metrics in results[1:]:
    for name in ('loss_text', 'loss_image', 'gradient_norm'):
      np.testing.assert_allclose(
        metrics[name], results[0][1][name], rtol=1e-5, err_msg=name
      )
    for name, value in params.items():
      np.testing.assert_allclose(value, results[0][0][name], atol=2e-5)


def test_a_loss_that_is_not_finite_changes_nothing_and_is_remembered(
  sgd, batch
):
  step, state = sgd
  broken = batch._replace(text_weights=batch.text_weights * jnp.nan)
  good, _ = step(state, batch)
  bad, _ = step(good, broken)
  later, _ = step(bad, batch)
  assert int(bad.bad_step) == 1 and int(later.bad_step) == 1
  for name, value in good.params.items():
    assert (bad.params[name] == value).all()
  assert (later.params['token_in'] != bad.params['token_in']).any()


def test_gradient_norms_are_those_of_each_task(batch):
  """Against the change that one SGD step with one loss alone makes."""
  measured = {}
  for task, weight in (('text', 1e6), ('image', 0.0)):
    context = context_of(optax.sgd(1.0), text_weight=weight)
    state = state_of(context)
    after, _ = jax.jit(make_train_step(context))(state, batch)
    change = {
      name: (value - after.params[name]) / max(weight, 1)
      for name, value in state.params.items()
      if name.startswith('gemma/stack')
    }
    measured[task] = float(optax.global_norm(change))
  context = context_of(optax.sgd(1.0))
  _, metrics = jax.jit(make_balance_step(context))(state_of(context), batch)
  for task, norm in measured.items():
    np.testing.assert_allclose(
      metrics[f'gradient_norm_{task}'], norm, rtol=1e-3
    )
  assert -1 <= float(metrics['gradient_cosine']) <= 1


def test_held_out_losses_are_those_of_training_without_an_update(batch):
  """As the mean over many draws of noise, and the very text loss."""
  context = context_of(optax.sgd(0.0), diffusion_batch_mul=64)
  state = state_of(context)
  measure = jax.jit(make_heldout_step(context))
  losses, counts = measure(state, batch, jnp.int32(0))
  _, metrics = jax.jit(make_train_step(context))(state, batch)
  np.testing.assert_allclose(losses.text, metrics['loss_text'], rtol=1e-5)
  np.testing.assert_allclose(losses.image, metrics['loss_image'], rtol=0.1)
  assert counts.text == batch.text_weights.sum()
  assert counts.image == tiny.TOKENS * (batch.generated_slots >= 0).sum()


def test_held_out_noise_depends_on_the_batch_and_not_on_the_step(batch):
  context = context_of(optax.sgd(0.0))
  state = state_of(context)
  measure = jax.jit(make_heldout_step(context))

  def image_loss(step, number):
    at = state._replace(step=jnp.int32(step))
    return float(measure(at, batch, jnp.int32(number))[0].image)

  assert image_loss(0, 0) == image_loss(500, 0)
  assert image_loss(0, 0) != image_loss(0, 1)
  parts = context_of(optax.sgd(0.0), grad_accum_steps=2)
  both, _ = jax.jit(make_heldout_step(parts))(state, batch, jnp.int32(0))
  np.testing.assert_allclose(both.image, image_loss(0, 0), rtol=1e-5)
