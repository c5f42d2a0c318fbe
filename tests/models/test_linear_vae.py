import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unifluid_jax.models import parameters
from unifluid_jax.models.linear_vae import linear_start, patch_moments
from unifluid_jax.models.vae import VAE, VAEConfig
from unifluid_jax.training.vae_losses import kl_divergence


def _images(seed=0, count=64):
  """Images whose neighboring pixels are alike, about a mean that is not 0."""
  rng = np.random.default_rng(seed)
  smooth = rng.standard_normal((count, 4, 4, 3)).repeat(2, 1).repeat(2, 2)
  images = 0.3 * smooth + 0.1 * rng.standard_normal(smooth.shape) + 0.4
  return jnp.asarray(images, jnp.float32)


def _started(images, channels, kl_weight, stride=4):
  """A VAE with the shortcuts' closed form, and its parameters by name."""
  config = VAEConfig(
    latent_channels=channels,
    widths=(8, 8),
    groups=4,
    patch_size=stride // 2,
    shortcuts=True,
    quant_convs=False,
    mid_attention=False,
  )
  graphdef, flat = parameters.flatten(VAE(config, rngs=nnx.Rngs(0)))
  moments = [patch_moments(part, stride) for part in jnp.split(images, 2)]
  start = linear_start(jax.device_get(moments), channels, kl_weight)
  for name, value in start.items():
    assert value.shape == flat[name].shape
  return graphdef, {**flat, **start}


def _expected_loss(vae, images, kl_weight):
  """The loss of a linear decoder, in expectation over the posterior's noise."""
  posterior = vae.encode(images)
  decoded = vae.decode(posterior.mean)
  gains = jnp.square(vae.decoder.shortcut.kernel[...][0, 0])
  noise = jnp.exp(posterior.logvar).mean((0, 1, 2)) @ gains.mean(1)
  reconstruction = jnp.mean(jnp.square(decoded - images)) + noise
  return reconstruction + kl_weight * kl_divergence(posterior)


def _projections(images, channels):
  """Principal components of the patches, and the squares that they leave."""
  patches = np.asarray(images).reshape(-1, 2, 4, 2, 4, 3)
  patches = patches.swapaxes(2, 3).reshape(-1, 48)
  left, scales, _ = np.linalg.svd(patches - patches.mean(0), False)
  return (left * scales)[:, :channels], np.square(scales[channels:]).sum()


@pytest.mark.parametrize('channels', [1, 5, 48, 50])
def test_no_linear_map_of_as_many_channels_loses_less(channels):
  images = _images()
  graphdef, flat = _started(images, channels, 0.0)
  vae = parameters.unflatten(graphdef, flat)
  decoded = vae.decode(vae.encode(images).mean)
  _, left = _projections(images, channels)
  np.testing.assert_allclose(
    np.square(decoded - images).sum(), left, rtol=1e-4, atol=1e-6
  )


def test_latents_lie_as_far_from_each_other_as_patches():
  images = _images()
  graphdef, flat = _started(images, 5, 1e-3)
  latents = parameters.unflatten(graphdef, flat).encode(images).mean
  latents = np.asarray(latents).reshape(-1, 5)
  np.testing.assert_allclose(latents.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(latents.var(0).mean(), 1, rtol=1e-3)
  assert latents.var(0).min() > 0.3 and latents.var(0).max() < 3
  projected, _ = _projections(images, 5)
  projected *= np.sqrt(5 / projected.var(0).sum())
  np.testing.assert_allclose(
    latents @ latents.T, projected @ projected.T, atol=2e-3
  )


@pytest.mark.parametrize('channels, kl_weight', [(3, 1e-3), (12, 0.5)])
def test_the_noise_is_the_best(channels, kl_weight):
  """The trained loss, in expectation over the noise, is flat there."""
  images = _images()
  graphdef, flat = _started(images, channels, kl_weight)

  def loss(bias):
    vae = parameters.unflatten(
      graphdef, {**flat, 'encoder/shortcut/bias': bias}
    )
    return _expected_loss(vae, images, kl_weight)

  bias = flat['encoder/shortcut/bias']
  gradient = np.asarray(jax.jit(jax.grad(loss))(bias))
  np.testing.assert_allclose(gradient[channels:], 0, atol=1e-6)
  less = np.concatenate([np.zeros(channels), np.full(channels, 0.3)])
  for moved in (bias - less, bias + less):
    assert jax.jit(loss)(moved) > jax.jit(loss)(bias)


def test_images_without_contrast_are_no_trouble():
  graphdef, flat = _started(jnp.full((4, 8, 8, 3), 0.25), 4, 0.0)
  vae = parameters.unflatten(graphdef, flat)
  posterior = vae.encode(jnp.full((1, 8, 8, 3), 0.25))
  np.testing.assert_allclose(vae.decode(posterior.mean), 0.25, atol=1e-5)
  assert np.isfinite(posterior.logvar).all()
