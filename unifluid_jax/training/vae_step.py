"""One training step of the VAE: a pure function of (state, images)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, UInt8

from unifluid_jax.config.sections.vae_training import VAELossConfig
from unifluid_jax.models import parameters
from unifluid_jax.models.latents import to_signed_unit
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.training.optimizer import advance_if_finite, ema_update
from unifluid_jax.training.vae_losses import vae_loss


class VAEState(NamedTuple):
  """The training state of a VAE, as checkpoints hold it.

  Attributes:
    step: Steps done.
    params: Trained parameters, float32, by name.
    statistics: Shift and scale of the latents, measured after training.
    opt_state: State of the optimizer.
    ema: Moving average of `params`.
    bad_step: First step with a non-finite loss or gradient, else -1.
  """

  step: Int[Array, '']
  params: Parameters
  statistics: Parameters
  opt_state: optax.OptState
  ema: Parameters
  bad_step: Int[Array, '']


def make_vae_step(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  loss: VAELossConfig,
  ema: float,
  seed: int,
) -> Callable[
  [VAEState, UInt8[Array, 'B S S 3']], tuple[VAEState, dict[str, Array]]
]:
  """Returns the step: (state, images) -> (state, metrics), to be jitted.

  A step with a non-finite loss or gradient changes only the step count and
  `bad_step`.

  Args:
    graphdef: Structure of the VAE.
    optimizer: Update rule.
    loss: Weights of the loss.
    ema: Decay of the moving average.
    seed: Seed of the run.
  """

  def vae_step(state, images):
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_of(params):
      vae = parameters.unflatten(graphdef, {**params, **state.statistics})
      return vae_loss(vae, to_signed_unit(images), key, loss)

    (value, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
      state.params
    )
    norm = optax.global_norm(gradient)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    advanced = state._replace(
      params=params,
      opt_state=opt_state,
      ema=ema_update(state.ema, params, state.step, ema),
    )
    return advance_if_finite(state, advanced, value, norm), metrics | {
      'loss': value,
      'gradient_norm': norm,
      'images': jnp.float32(images.shape[0]),
    }

  return vae_step
