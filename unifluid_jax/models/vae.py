"""The image tokenizer: a variational autoencoder with a Gaussian posterior.

The architecture is Stable Diffusion's KL autoencoder (Rombach et al., 2022,
arXiv 2112.10752) at any width, which `sizes.VAE_SIZES` lists. Small configs
put a patch stem around it: space-to-depth before the encoder's first
convolution and depth-to-space after the decoder's last one, so that a 32 px
image with patches of 4 is an 8x8 grid at once. They may also have linear
shortcuts, which start as the best linear autoencoder (`linear_vae`), and the
convolutions improve on it.

Legend: n images, S image side in pixels, h w latent grid, Z latent channels.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from unifluid_jax.models.convolution import (
  Conv,
  GridAttention,
  GroupNorm,
  ResidualBlock,
  silu,
  unfused,
)
from unifluid_jax.utils.errors import (
  UserError,
  check_between,
  check_least,
  check_most,
)

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class VAEConfig:
  """Shape of the autoencoder.

  Attributes:
    latent_channels: Channels of the latent grid.
    widths: Channels of each level; the grid halves between levels.
    encoder_blocks: Residual blocks of each encoder level.
    decoder_blocks: Residual blocks of each decoder level.
    groups: Groups of the group normalizations.
    patch_size: Side of the pixel patches that the stem makes one position of.
    mid_attention: Whether the lowest grid has attention between its blocks.
    attention_levels: Encoder levels with attention after every block.
    quant_convs: Whether 1x1 convolutions stand on both sides of the latents.
    shortcuts: Whether linear maps between the pixels and the latents of each
      grid position run beside encoder and decoder, which then start at zero.
    latent_shift: Initial shift of the latents' normalization.
    latent_scale: Initial scale of the latents' normalization.
  """

  latent_channels: int
  widths: tuple[int, ...]
  encoder_blocks: int = 2
  decoder_blocks: int = 3
  groups: int = 32
  patch_size: int = 1
  mid_attention: bool = True
  attention_levels: tuple[int, ...] = ()
  quant_convs: bool = True
  shortcuts: bool = False
  latent_shift: float = 0.0
  latent_scale: float = 1.0

  def __post_init__(self):
    counts = ('latent_channels', 'groups', 'patch_size')
    check_least('vae', self, 1, *counts)
    check_least('vae', self, 0, 'encoder_blocks', 'decoder_blocks')
    check_most('vae', self, 2**12, 'latent_channels', 'groups', 'patch_size')
    check_most('vae', self, 2**10, 'encoder_blocks', 'decoder_blocks')
    if len(self.widths) > 12 or any(width > 2**16 for width in self.widths):
      raise UserError(
        f'vae.widths is {_shortened(self.widths)}; it must be at most 12 '
        'levels of at most 65536 channels'
      )
    if not self.latent_scale:
      raise UserError('vae.latent_scale is 0; latents are divided by it')
    finite = ('latent_shift', 'latent_scale')
    check_between('vae', self, -math.inf, math.inf, *finite)

  @property
  def stride(self) -> int:
    """Pixels per latent position, along one side."""
    return self.patch_size * 2 ** (len(self.widths) - 1)


def _shortened(widths: tuple[int, ...]) -> str:
  more = ', ...' if len(widths) > 12 else ''
  return f'({", ".join(map(str, widths[:12]))}{more})'


class Moments(NamedTuple):
  """The posterior: independent Gaussians, one per latent.

  Attributes:
    mean: Their means.
    logvar: Logarithms of their variances.
  """

  mean: Float[Array, 'n h w Z']
  logvar: Float[Array, 'n h w Z']

  def sample(self, key: PRNGKeyArray) -> Float[Array, 'n h w Z']:
    """Draws latents."""
    noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
    return self.mean + jnp.exp(0.5 * self.logvar) * noise


def to_patches(
  images: Float[Array, 'n S S c'], size: int
) -> Float[Array, 'n h w c2']:
  """Space to depth: each size x size patch becomes one position."""
  return einops.rearrange(
    images, 'n (h p) (w q) c -> n h w (p q c)', p=size, q=size
  )


def from_patches(
  patches: Float[Array, 'n h w c2'], size: int
) -> Float[Array, 'n S S c']:
  """Depth to space, the inverse of `to_patches`."""
  return einops.rearrange(
    patches, 'n h w (p q c) -> n (h p) (w q) c', p=size, q=size
  )


class MidBlock(nnx.Module):
  """Two residual blocks at the lowest grid, attention between them."""

  def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
    width, groups = config.widths[-1], config.groups
    self.block1 = ResidualBlock(width, width, groups, rngs=rngs)
    self.attention = (
      GridAttention(width, groups, rngs=rngs) if config.mid_attention else None
    )
    self.block2 = ResidualBlock(width, width, groups, rngs=rngs)

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    x = self.block1(x)
    if self.attention is not None:
      x = self.attention(x)
    return self.block2(x)


class Level(nnx.Module):
  """Residual blocks, each with its attention if any, then a resampling conv.

  `resample` is 'down' (a stride-2 convolution), 'up' (nearest, then a
  convolution) or None at the end of the way.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    blocks: int,
    groups: int,
    *,
    rngs: nnx.Rngs,
    attention: bool = False,
    resample: str | None = None,
  ):
    widths = [inputs] + [outputs] * blocks
    self.blocks = nnx.List(
      ResidualBlock(before, after, groups, rngs=rngs)
      for before, after in zip(widths, widths[1:], strict=False)
    )
    self.attentions = nnx.List(
      GridAttention(outputs, groups, rngs=rngs)
      for _ in range(blocks if attention else 0)
    )
    self.resample = resample
    self.conv = (
      Conv(outputs, outputs, rngs=rngs, stride=2 if resample == 'down' else 1)
      if resample
      else None
    )

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 c2']:
    for index, block in enumerate(self.blocks):
      x = block(x)
      if self.attentions:
        x = self.attentions[index](x)
    if self.resample == 'up':
      x = einops.repeat(x, 'n h w c -> n (h 2) (w 2) c')
    return x if self.conv is None else self.conv(x)


class Encoder(nnx.Module):
  """Images to the posterior's moments, stacked in the channels."""

  def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
    widths, groups = config.widths, config.groups
    self.patch_size = config.patch_size
    self.conv_in = Conv(3 * config.patch_size**2, widths[0], rngs=rngs)
    self.levels = nnx.List(
      Level(
        widths[max(level - 1, 0)],
        width,
        config.encoder_blocks,
        groups,
        rngs=rngs,
        attention=level in config.attention_levels,
        resample='down' if level < len(widths) - 1 else None,
      )
      for level, width in enumerate(widths)
    )
    self.mid = MidBlock(config, rngs=rngs)
    self.norm_out = GroupNorm(widths[-1], groups)
    moments = 2 * config.latent_channels
    self.conv_out = Conv(widths[-1], moments, rngs=rngs, zero=config.shortcuts)
    self.stride = config.stride
    self.shortcut = (
      Conv(3 * config.stride**2, moments, rngs=rngs, size=1)
      if config.shortcuts
      else None
    )

  def __call__(
    self, images: Float[Array, 'n S S 3']
  ) -> Float[Array, 'n h w c']:
    x = self.conv_in(to_patches(images, self.patch_size))
    for level in self.levels:
      x = level(x)
    x = self.conv_out(unfused(silu(self.norm_out(self.mid(x)))))
    if self.shortcut is not None:
      x += self.shortcut(to_patches(images, self.stride))
    return x


class Decoder(nnx.Module):
  """Latents to images."""

  def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
    widths, groups = config.widths[::-1], config.groups
    self.patch_size = config.patch_size
    self.conv_in = Conv(config.latent_channels, widths[0], rngs=rngs)
    self.mid = MidBlock(config, rngs=rngs)
    self.levels = nnx.List(
      Level(
        widths[max(level - 1, 0)],
        width,
        config.decoder_blocks,
        groups,
        rngs=rngs,
        resample='up' if level < len(widths) - 1 else None,
      )
      for level, width in enumerate(widths)
    )
    self.norm_out = GroupNorm(widths[-1], groups)
    self.conv_out = Conv(
      widths[-1],
      3 * config.patch_size**2,
      rngs=rngs,
      zero=config.shortcuts,
    )
    self.stride = config.stride
    self.shortcut = (
      Conv(config.latent_channels, 3 * config.stride**2, rngs=rngs, size=1)
      if config.shortcuts
      else None
    )

  def __call__(
    self, latents: Float[Array, 'n h w Z']
  ) -> Float[Array, 'n S S 3']:
    x = self.mid(self.conv_in(latents))
    for level in self.levels:
      x = level(x)
    x = self.conv_out(unfused(silu(self.norm_out(x))))
    images = from_patches(x, self.patch_size)
    if self.shortcut is not None:
      images += from_patches(self.shortcut(latents), self.stride)
    return images


class LatentStatistics(nnx.Variable):
  """Per-channel shift or scale that normalizes latents; never trained."""


class VAE(nnx.Module):
  """Images to normalizable latents and back."""

  def __init__(
    self, config: VAEConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32
  ):
    """Makes the modules.

    Args:
      config: Shape of the autoencoder.
      rngs: Source of the parameters' keys.
      dtype: Compute dtype; moments and images come out in float32.
    """
    channels = config.latent_channels
    self.config = config
    self.dtype = dtype
    self.encoder = Encoder(config, rngs=rngs)
    self.decoder = Decoder(config, rngs=rngs)
    self.quant_conv, self.post_quant_conv = (
      Conv(width, width, rngs=rngs, size=1) if config.quant_convs else None
      for width in (2 * channels, channels)
    )
    self.shift = LatentStatistics(
      jnp.full((channels,), config.latent_shift), logical_axes=('latent',)
    )
    self.scale = LatentStatistics(
      jnp.full((channels,), config.latent_scale), logical_axes=('latent',)
    )

  def encode(self, images: Float[Array, 'n S S 3']) -> Moments:
    """The posterior of images with values in [-1, 1].

    Raises:
      UserError: The images' side is not a multiple of the stride.
    """
    side, stride = images.shape[1], self.config.stride
    if side % stride:
      raise UserError(
        f'the autoencoder makes one latent of {stride}x{stride} pixels: an '
        f'image side of {side} is not a multiple of {stride}'
      )
    x = self.encoder(images.astype(self.dtype))
    if self.quant_conv is not None:
      x = self.quant_conv(x)
    mean, logvar = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return Moments(mean, jnp.clip(logvar, *LOG_VARIANCE_RANGE))

  def decode(self, latents: Float[Array, 'n h w Z']) -> Float[Array, 'n S S 3']:
    """Images, about in [-1, 1] but not clipped, of unnormalized latents."""
    x = latents.astype(self.dtype)
    if self.post_quant_conv is not None:
      x = self.post_quant_conv(x)
    return self.decoder(x).astype(jnp.float32)

  def normalize(
    self, latents: Float[Array, 'n h w Z']
  ) -> Float[Array, 'n h w Z']:
    """Latents with mean 0 and standard deviation 1 per channel."""
    return (latents - self.shift[...]) / self.scale[...]

  def denormalize(
    self, latents: Float[Array, 'n h w Z']
  ) -> Float[Array, 'n h w Z']:
    """The inverse of `normalize`."""
    return latents * self.scale[...] + self.shift[...]

  def calibrate(self, posteriors: Iterable[Moments]) -> None:
    """Sets the shift and scale from the posteriors of many images.

    They become the mean and the standard deviation of samples of those
    posteriors, in closed form: a channel's variance is that of its means
    plus the mean of its variances.

    Args:
      posteriors: What `encode` gave, batch by batch; sums are in float64.
    """
    count, total, squares = 0, 0.0, 0.0
    for posterior in posteriors:
      mean = np.asarray(posterior.mean, np.float64)
      variance = np.exp(np.asarray(posterior.logvar, np.float64))
      count += mean[..., 0].size
      total += mean.sum((0, 1, 2))
      squares += (np.square(mean) + variance).sum((0, 1, 2))
    shift = total / count
    scale = np.sqrt(squares / count - np.square(shift))
    self.shift[...] = jnp.asarray(shift, jnp.float32)
    self.scale[...] = jnp.asarray(scale, jnp.float32)
