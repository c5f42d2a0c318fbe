import dataclasses

import hf_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from flax import nnx

from tests.tiny_vae import CONFIG, abstract_vae, make_vae
from unifluid_jax.models import parameters
from unifluid_jax.models.sizes import VAE_SIZES
from unifluid_jax.models.vae import (
  VAE,
  LatentStatistics,
  Moments,
  VAEConfig,
  from_patches,
  to_patches,
)
from unifluid_jax.utils.errors import UserError

SD_LIKE = VAEConfig(latent_channels=4, widths=(8, 16, 16), groups=4)
NO_ATTENTION = VAEConfig(
  latent_channels=16,
  widths=(16, 8),
  encoder_blocks=1,
  decoder_blocks=2,
  groups=8,
  mid_attention=False,
  quant_convs=False,
)
LEVEL_ATTENTION = VAEConfig(
  latent_channels=3, widths=(8, 16), groups=2, attention_levels=(1,)
)

# More channels than a convolution is fused with others for.
WIDE = VAEConfig(
  latent_channels=4,
  widths=(8, 288),
  encoder_blocks=1,
  decoder_blocks=2,
  groups=8,
)


def oracle(config: VAEConfig) -> AutoencoderKL:
  """diffusers' autoencoder of that shape, with no parameter at 0 or 1."""
  levels = range(len(config.widths))
  attention = [level in config.attention_levels for level in levels]
  torch.manual_seed(0)
  model = AutoencoderKL(
    down_block_types=[
      'AttnDownEncoderBlock2D' if a else 'DownEncoderBlock2D' for a in attention
    ],
    up_block_types=['UpDecoderBlock2D' for _ in levels],
    block_out_channels=config.widths,
    layers_per_block=config.encoder_blocks,
    latent_channels=config.latent_channels,
    norm_num_groups=config.groups,
    use_quant_conv=config.quant_convs,
    use_post_quant_conv=config.quant_convs,
    mid_block_add_attention=config.mid_attention,
  )
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model.eval()


def from_oracle(model: AutoencoderKL, config: VAEConfig) -> VAE:
  graphdef, state = nnx.split(abstract_vae(config))
  shapes = {
    '/'.join(map(str, path)): variable.get_value().shape
    for path, variable in nnx.to_flat_state(state)
  }
  values = hf_weights.import_weights(model, 'vae')
  assert {name: value.shape for name, value in values.items()} == shapes
  return parameters.unflatten(graphdef, jax.tree.map(jnp.asarray, values))


@nnx.jit
def encode(vae: VAE, images: jax.Array) -> Moments:
  return vae.encode(images)


@nnx.jit
def decode(vae: VAE, latents: jax.Array) -> jax.Array:
  return vae.decode(latents)


def assert_close(ours: jax.Array, theirs: torch.Tensor):
  expected = theirs.permute(0, 2, 3, 1).numpy()
  error = np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()
  assert error < 1e-5


@pytest.mark.parametrize(
  'config', [SD_LIKE, NO_ATTENTION, LEVEL_ATTENTION, WIDE]
)
def test_agrees_with_diffusers(config):
  theirs = oracle(config)
  ours = from_oracle(theirs, config)
  images = torch.rand(2, 3, 16, 16) * 2 - 1
  # In float64, so that all of the error is ours.
  theirs = theirs.double()
  with torch.no_grad():
    posterior = theirs.encode(images.double()).latent_dist
    decoded = theirs.decode(posterior.mean).sample
  moments = encode(ours, jnp.asarray(images.permute(0, 2, 3, 1).numpy()))
  assert_close(moments.mean, posterior.mean)
  assert_close(moments.logvar, posterior.logvar)
  assert_close(decode(ours, moments.mean), decoded)


def test_log_variance_is_clamped_as_in_diffusers():
  theirs = oracle(SD_LIKE)
  with torch.no_grad():
    theirs.quant_conv.bias.copy_(torch.linspace(-200, 200, 8))
  images = torch.rand(1, 3, 8, 8)
  with torch.no_grad():
    logvar = theirs.encode(images).latent_dist.logvar
  ours = encode(
    from_oracle(theirs, SD_LIKE),
    jnp.asarray(images.permute(0, 2, 3, 1).numpy()),
  )
  assert_close(ours.logvar, logvar)
  assert ours.logvar.max() == 20.0


def count(config: VAEConfig) -> int:
  model = abstract_vae(config)
  return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_stable_diffusion_size():
  assert count(VAE_SIZES['sd']) == 83_653_863
  assert VAE_SIZES['sd'].stride == 8


def test_mar_size_has_the_stride_and_attention_of_kl16():
  config = VAE_SIZES['mar_kl16']
  model = abstract_vae(config)
  assert (config.stride, config.latent_channels) == (16, 16)
  attentions = [len(level.attentions) for level in model.encoder.levels]
  assert attentions == [0, 0, 0, 0, 2]
  assert all(not level.attentions for level in model.decoder.levels)


def test_tiny_makes_an_8x8_grid_of_a_32_pixel_image():
  config = VAE_SIZES['tiny']

  def round_trip(images):
    vae = VAE(config, rngs=nnx.Rngs(0))
    latents = vae.encode(images).mean
    return latents, vae.decode(latents)

  images = jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32)
  latents, decoded = jax.eval_shape(round_trip, images)
  assert latents.shape == (3, 8, 8, config.latent_channels)
  assert decoded.shape == images.shape


def test_patches_are_squares_of_pixels():
  images = np.random.default_rng(0).standard_normal((2, 12, 12, 3))
  images = jnp.asarray(images, jnp.float32)
  patches = to_patches(images, 4)
  assert patches.shape == (2, 3, 3, 48)
  np.testing.assert_array_equal(
    patches[1, 2, 0], images[1, 8:12, 0:4].reshape(-1)
  )
  np.testing.assert_array_equal(from_patches(patches, 4), images)


def test_fresh_shortcuts_are_a_linear_autoencoder():
  """With two levels the shortcuts span the whole stride of 4 pixels."""
  config = VAEConfig(
    latent_channels=5,
    widths=(8, 8),
    groups=4,
    patch_size=2,
    shortcuts=True,
    quant_convs=False,
  )
  vae = VAE(config, rngs=nnx.Rngs(0))
  images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  into = vae.encoder.shortcut.kernel[...][0, 0]
  expected = to_patches(images, 4) @ into
  posterior = encode(vae, images)
  np.testing.assert_allclose(posterior.mean, expected[..., :5], atol=1e-5)
  np.testing.assert_allclose(posterior.logvar, expected[..., 5:], atol=1e-5)
  out = vae.decoder.shortcut.kernel[...][0, 0]
  np.testing.assert_allclose(
    decode(vae, posterior.mean),
    from_patches(posterior.mean @ out, 4),
    atol=1e-5,
  )


def test_side_must_be_a_multiple_of_the_stride():
  with pytest.raises(UserError, match='30 is not a multiple of 4'):
    make_vae().encode(jnp.zeros((1, 30, 30, 3)))


def test_samples_follow_the_posterior():
  shape = (4000, 1, 1, 2)
  posterior = Moments(
    jnp.broadcast_to(jnp.array([1.0, -2.0]), shape),
    jnp.broadcast_to(2 * jnp.log(jnp.array([0.5, 3.0])), shape),
  )
  samples = posterior.sample(jax.random.key(0))
  np.testing.assert_allclose(samples.mean((0, 1, 2)), [1, -2], atol=0.15)
  np.testing.assert_allclose(samples.std((0, 1, 2)), [0.5, 3], rtol=0.05)


def test_calibrated_latents_are_standardized():
  """Means and posterior noise both count, over batches of any size."""
  vae = make_vae()
  rng = np.random.default_rng(1)
  shape = (300, 4, 4, 6)
  spread = np.array([0.1, 0.5, 1.0, 2.0, 5.0, 0.0])
  mean = 100 + spread * rng.standard_normal(shape)
  deviation = np.broadcast_to(np.linspace(0.1, 3, 6), shape)
  samples = mean + deviation * rng.standard_normal(shape)
  mean, logvar, samples = (
    jnp.asarray(value, jnp.float32)
    for value in (mean, 2 * np.log(deviation), samples)
  )
  vae.calibrate(
    Moments(mean[part], logvar[part])
    for part in (slice(0, 7), slice(7, 200), slice(200, 300))
  )
  normalized = vae.normalize(samples)
  np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=0.05)
  np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=0.05)
  np.testing.assert_allclose(vae.denormalize(normalized), samples, rtol=1e-5)


def test_initial_statistics_are_the_configs():
  sd = VAE_SIZES['sd']
  config = dataclasses.replace(
    CONFIG, latent_shift=0.5, latent_scale=sd.latent_scale
  )
  latents = jnp.linspace(-3, 3, 24).reshape(1, 2, 2, 6)
  normalized = nnx.jit(lambda: VAE(config, rngs=nnx.Rngs(0)).normalize(latents))
  np.testing.assert_allclose(normalized(), (latents - 0.5) * 0.18215, rtol=1e-5)


def test_statistics_are_not_trained():
  vae = abstract_vae(CONFIG)
  names = {
    kind: {path[0] for path, _ in nnx.to_flat_state(nnx.state(vae, kind))}
    for kind in (LatentStatistics, nnx.Param)
  }
  assert names[LatentStatistics] == {'shift', 'scale'}
  assert names[nnx.Param] == {'encoder', 'decoder'}


def test_bfloat16_compute_stays_near_float32():
  images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3))
  images = jnp.asarray(images, jnp.float32)
  exact, fast = make_vae(), make_vae()
  fast.dtype = jnp.bfloat16
  moments, expected = encode(fast, images), encode(exact, images)
  assert moments.mean.dtype == jnp.float32
  assert not jnp.array_equal(moments.mean, expected.mean)
  np.testing.assert_allclose(moments.mean, expected.mean, atol=0.1)
  decoded = decode(fast, expected.mean)
  assert decoded.dtype == jnp.float32
  np.testing.assert_allclose(decoded, decode(exact, expected.mean), atol=0.1)
