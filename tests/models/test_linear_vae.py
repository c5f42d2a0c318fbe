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
  """Images whose neighbouring pixels are alike, about a mean that is not 0."""
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


@pytest.mark.parametrize(
  'channels, kl_weight', [(3, 1e-3), (12, 0.02), (48, 0.1)]
)
def test_no_linear_autoencoder_is_better(channels, kl_weight):
  """The closed form is where the gradient of the trained loss vanishes."""
  images = _images()
  graphdef, flat = _started(images, channels, kl_weight)
  names = [name for name in flat if 'shortcut' in name]

  def loss(shortcuts):
    vae = parameters.unflatten(graphdef, {**flat, **shortcuts})
    return _expected_loss(vae, images, kl_weight)

  shortcuts = {name: flat[name] for name in names}
  least, gradient = jax.jit(jax.value_and_grad(loss))(shortcuts)
  for name in names:
    np.testing.assert_allclose(gradient[name], 0, atol=2e-5, err_msg=name)
  rng = np.random.default_rng(1)
  for scale in (0.01, 0.1):
    moved = {
      name: value + scale * rng.standard_normal(value.shape)
      for name, value in shortcuts.items()
    }
    assert jax.jit(loss)(moved) > least


def test_without_noise_it_is_principal_component_analysis():
  images = _images()
  graphdef, flat = _started(images, 5, 0.0)
  vae = parameters.unflatten(graphdef, flat)
  decoded = vae.decode(vae.encode(images).mean)
  patches = np.asarray(images).reshape(-1, 2, 4, 2, 4, 3)
  patches = patches.swapaxes(2, 3).reshape(-1, 48)
  centred = patches - patches.mean(0)
  left = np.linalg.svd(centred, compute_uv=False)[5:]
  np.testing.assert_allclose(
    np.square(decoded - images).sum(), np.square(left).sum(), rtol=1e-4
  )


def test_latents_follow_the_prior():
  """Every channel in use has mean 0 and variance 1, posterior included."""
  images = _images()
  graphdef, flat = _started(images, 4, 1e-3)
  posterior = parameters.unflatten(graphdef, flat).encode(images)
  np.testing.assert_allclose(posterior.mean.mean((0, 1, 2)), 0, atol=1e-4)
  variance = posterior.mean.var((0, 1, 2)) + jnp.exp(posterior.logvar[0, 0, 0])
  np.testing.assert_allclose(variance, 1, rtol=1e-3)


def test_channels_that_patches_do_not_fill_carry_nothing():
  images = jnp.broadcast_to(_images()[:, :1, :1], (64, 8, 8, 3))
  graphdef, flat = _started(images, 6, 1e-3)
  posterior = parameters.unflatten(graphdef, flat).encode(images)
  used = np.asarray(posterior.mean.std((0, 1, 2)) > 0.1)
  np.testing.assert_array_equal(used, [True] * 3 + [False] * 3)
  np.testing.assert_allclose(posterior.logvar[..., 3:], 0, atol=1e-3)
