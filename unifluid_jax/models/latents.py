"""Latent grids to image tokens and back.

MAR's token geometry for a stride-8 VAE: p x p latents make one token, channel
major inside it (LTH14/mar, models/mar.py patchify).
"""

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from unifluid_jax.models.vae import VAE
from unifluid_jax.sharding.logical_axes import constrain
from unifluid_jax.sharding.microbatches import map_rows

PIXELS = 65_536
"""Most pixels that a device encodes or decodes at once, unless an image is
larger: their activations then stay near the arithmetic (a VAE holds hundreds
of channels a pixel)."""


def to_signed_unit(images: UInt8[Array, '*n']) -> Float[Array, '*n']:
  """Pixels 0..255 to [-1, 1]."""
  return images.astype(jnp.float32) / 127.5 - 1


def encode_tokens(
  vae: VAE,
  images: UInt8[Array, 'B G S S 3'],
  patch: int,
  key: PRNGKeyArray | None = None,
) -> Float[Array, 'B G N Z']:
  """Standardized tokens of images: samples, or the means without a key."""
  rows, count, side = images.shape[:3]
  vae = _gathered(vae)
  posterior = map_rows(
    lambda some: vae.encode(to_signed_unit(some)),
    images.reshape(-1, *images.shape[2:]),
    _at_once(side),
  )
  latents = posterior.mean if key is None else posterior.sample(key)
  tokens = to_tokens(vae.normalize(latents), patch)
  return tokens.reshape(rows, count, *tokens.shape[1:])


def decode_tokens(
  vae: VAE, tokens: Float[Array, 'n N Z'], patch: int, side: int
) -> Float[Array, 'n S S 3']:
  """Images, about in [-1, 1] but not clipped, of standardized tokens.

  Args:
    vae: The autoencoder.
    tokens: In raster order.
    patch: Side of the group of latents that makes a token.
    side: S, pixels.
  """
  vae = _gathered(vae)

  def decode(some):
    latents = from_tokens(some, patch, side // vae.config.stride)
    return vae.decode(vae.denormalize(latents))

  return map_rows(decode, tokens, _at_once(side))


def reconstruct(
  vae: VAE, images: UInt8[Array, 'n S S 3']
) -> Float[Array, 'n S S 3']:
  """Images, about in [-1, 1], after the encoder (means) and the decoder."""
  vae = _gathered(vae)
  return map_rows(
    lambda some: vae.decode(vae.encode(to_signed_unit(some)).mean),
    images,
    _at_once(images.shape[1]),
  )


def _gathered(vae: VAE) -> VAE:
  """With its weights whole on every device, once and not for each part."""
  graphdef, state = nnx.split(vae)
  whole = jax.tree.map(lambda x: constrain(x, (None,) * x.ndim), state)
  return nnx.merge(graphdef, whole)


def _at_once(side: int) -> int:
  """Images of side x side pixels that a device processes at once."""
  return max(1, PIXELS // side**2)


def to_tokens(
  latents: Float[Array, '*n h w c'], patch: int
) -> Float[Array, '*n N Z']:
  """Groups patch x patch latents of c channels into tokens of Z = c p p."""
  return einops.rearrange(
    latents,
    '... (h p) (w q) c -> ... (h w) (c p q)',
    p=patch,
    q=patch,
  )


def from_tokens(
  tokens: Float[Array, '*n N Z'], patch: int, side: int
) -> Float[Array, '*n h w c']:
  """The inverse of `to_tokens` for a grid of `side` x `side` latents."""
  return einops.rearrange(
    tokens,
    '... (h w) (c p q) -> ... (h p) (w q) c',
    h=side // patch,
    p=patch,
    q=patch,
  )
