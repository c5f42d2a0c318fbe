import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny_vae import make_vae
from unifluid_jax.config.sections.vae_training import VAELossConfig
from unifluid_jax.models.vae import Moments
from unifluid_jax.training.vae_losses import (
  kl_divergence,
  psnr,
  vae_loss,
)


def constant_posterior(mean: float, deviation: float) -> Moments:
  shape = (2, 3, 3, 4)
  return Moments(jnp.full(shape, mean), jnp.full(shape, 2 * np.log(deviation)))


def test_kl_of_known_gaussians():
  assert kl_divergence(constant_posterior(0.0, 1.0)) == pytest.approx(0.0)
  # ln(1/s) + (s^2 + m^2)/2 - 1/2 for m = 3, s = 2.
  assert kl_divergence(constant_posterior(3.0, 2.0)) == pytest.approx(
    -np.log(2) + (4 + 9) / 2 - 0.5
  )


def test_kl_agrees_with_sampling():
  posterior = constant_posterior(0.7, 0.4)
  x = 0.7 + 0.4 * np.random.default_rng(0).standard_normal(1_000_000)
  log_q = -0.5 * ((x - 0.7) / 0.4) ** 2 - np.log(0.4)
  estimate = (log_q + 0.5 * x**2).mean()
  assert kl_divergence(posterior) == pytest.approx(estimate, abs=0.01)


def test_psnr_of_a_known_error_and_of_clipping():
  images = jnp.zeros((2, 4, 4, 3)).at[1].set(1.0)
  # An error of 0.2 in [-1, 1] is 25.5 of 255: 20 log10(255 / 25.5) = 20 dB.
  decoded = images + jnp.array([0.2, -0.02])[:, None, None, None]
  np.testing.assert_allclose(psnr(images, decoded), [20, 40], rtol=1e-4)
  assert psnr(images, 2 * images - 1e-3)[1] > 50


def test_loss_is_its_terms_and_reaches_every_parameter():
  images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3)) * 2 - 1
  graphdef, params, rest = nnx.split(make_vae(), nnx.Param, ...)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def losses(params):
    vae = nnx.merge(graphdef, params, rest)
    return vae_loss(vae, images, jax.random.key(1), VAELossConfig(10.0))

  (loss, metrics), grads = losses(params)
  terms = metrics['reconstruction'] + 10 * metrics['kl']
  assert loss == pytest.approx(float(terms), rel=1e-5)
  for path, grad in nnx.to_flat_state(grads):
    assert jnp.abs(grad.get_value()).max() > 0, path


def test_loss_draws_noise_from_its_key():
  vae = make_vae()
  images = jnp.zeros((1, 8, 8, 3))

  @jax.jit
  def loss(seed):
    return vae_loss(vae, images, jax.random.key(seed), VAELossConfig())[0]

  assert loss(0) == loss(0) != loss(1)
