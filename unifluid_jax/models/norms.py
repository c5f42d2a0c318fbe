"""Normalization over the last axis; statistics in float32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unifluid_jax.models.parameters import constant


class RMSNorm(nnx.Module):
  """RMS normalization with Gemma's zero-centered scale: x / rms * (1 + scale).

  Source: google-deepmind/gemma, gm/nn/_layers.py.
  """

  def __init__(self, width: int, eps: float = 1e-6, axis: str = 'embed'):
    """Makes the identity scale.

    Args:
      width: Size of the normalized axis.
      eps: Added to the mean square.
      axis: Logical name of the normalized axis.
    """
    self.scale = constant(0.0, (width,), (axis,))
    self.eps = eps

  def __call__(self, x: Float[Array, '*n D']) -> Float[Array, '*n D']:
    """Normalizes in float32, returns x's dtype."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(mean_square + self.eps)
    return (wide * (1 + self.scale[...])).astype(x.dtype)


class LayerNorm(nnx.Module):
  """Layer normalization (Ba et al., 2016) with scale and bias."""

  def __init__(self, width: int, eps: float = 1e-6, axis: str = 'embed'):
    """Makes the identity scale and bias.

    Args:
      width: Size of the normalized axis.
      eps: Added to the variance.
      axis: Logical name of the normalized axis.
    """
    self.scale = constant(1.0, (width,), (axis,))
    self.bias = constant(0.0, (width,), (axis,))
    self.eps = eps

  def __call__(self, x: Float[Array, '*n D']) -> Float[Array, '*n D']:
    """Normalizes in float32, returns x's dtype."""
    wide = x.astype(jnp.float32)
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    wide = centered * jax.lax.rsqrt(variance + self.eps)
    return (wide * self.scale[...] + self.bias[...]).astype(x.dtype)
