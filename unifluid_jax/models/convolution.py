"""The pieces of a convolutional residual network, channels last.

Legend: n images, h w grid, c channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unifluid_jax.models.parameters import constant, fan_in

GROUP_NORM_EPSILON = 1e-6

# What a TPU's compiler is good at. With fewer inputs it takes a convolution
# for three times as long; with more channels it searches long for what to
# fuse into one, and finds little: such convolutions are bound by arithmetic.
_LEAST_INPUTS = 8
_FUSED_CHANNELS = 256


class Conv(nnx.Module):
  """A convolution that keeps the grid, or halves it with stride 2.

  The stride-2 form pads below and to the right only, as Stable Diffusion's
  autoencoder does. Kernels are [height width in out]; `zero` starts them at 0.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    size: int = 3,
    stride: int = 1,
    zero: bool = False,
  ):
    shape = (size, size, inputs, outputs)
    axes = ('height', 'width', 'in', 'out')
    self.kernel = (
      constant(0.0, shape, axes) if zero else fan_in(rngs.params(), shape, axes)
    )
    self.bias = constant(0.0, (outputs,), ('out',))
    self.stride = stride
    before = (size - 1) // 2 if stride == 1 else 0
    self.padding = ((before, size - 1 - before - (stride - 1)),) * 2

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 c2']:
    kernel = self.kernel[...].astype(x.dtype)
    if (missing := _LEAST_INPUTS - x.shape[-1]) > 0:
      x = jnp.pad(x, [(0, 0)] * 3 + [(0, missing)])
      kernel = jnp.pad(kernel, [(0, 0)] * 2 + [(0, missing), (0, 0)])
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      self.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      preferred_element_type=jnp.float32,
    )
    return (y + self.bias[...]).astype(x.dtype)


def silu(x: Float[Array, '*n c']) -> Float[Array, '*n c']:
  """x * sigmoid(x) in float32, returns x's dtype."""
  return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


class GroupNorm(nnx.Module):
  """Group normalization (Wu & He, 2018); statistics in float32."""

  def __init__(self, channels: int, groups: int):
    self.scale = constant(1.0, (channels,), ('out',))
    self.bias = constant(0.0, (channels,), ('out',))
    self.groups = groups

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    # Sums of channels, then of groups: the grid keeps its layout.
    y = x.astype(jnp.float32)
    y -= self._group_means(y)
    variance = self._group_means(jnp.square(y))
    y *= jax.lax.rsqrt(variance + GROUP_NORM_EPSILON) * self.scale[...]
    y += self.bias[...]
    return y.astype(x.dtype)

  def _group_means(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n 1 1 c']:
    """Each channel's mean over the grid and the channels of its group."""
    means = x.mean((1, 2)).reshape(len(x), self.groups, -1)
    means = jnp.broadcast_to(means.mean(-1, keepdims=True), means.shape)
    return means.reshape(len(x), 1, 1, -1)


def unfused(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  """x, computed for itself beside a convolution of many channels."""
  return (
    x if x.shape[-1] <= _FUSED_CHANNELS else jax.lax.optimization_barrier(x)
  )


class ResidualBlock(nnx.Module):
  """x + conv(silu(norm(conv(silu(norm(x)))))).

  A 1x1 convolution carries x to the new width where the width changes.
  """

  def __init__(self, inputs: int, outputs: int, groups: int, *, rngs: nnx.Rngs):
    self.norm1 = GroupNorm(inputs, groups)
    self.conv1 = Conv(inputs, outputs, rngs=rngs)
    self.norm2 = GroupNorm(outputs, groups)
    self.conv2 = Conv(outputs, outputs, rngs=rngs)
    self.shortcut = (
      Conv(inputs, outputs, rngs=rngs, size=1) if inputs != outputs else None
    )

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c2']:
    y = self.conv1(unfused(silu(self.norm1(x))))
    y = unfused(self.conv2(unfused(silu(self.norm2(y)))))
    return y + (x if self.shortcut is None else self.shortcut(x))


class GridAttention(nnx.Module):
  """Single-head self-attention over the positions of the grid, residual."""

  def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
    self.norm = GroupNorm(channels, groups)
    self.query = Conv(channels, channels, rngs=rngs, size=1)
    self.key = Conv(channels, channels, rngs=rngs, size=1)
    self.value = Conv(channels, channels, rngs=rngs, size=1)
    self.out = Conv(channels, channels, rngs=rngs, size=1)

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    n, h, w, c = x.shape
    y = self.norm(x)
    query, key, value = (
      project(y).reshape(n, h * w, c)
      for project in (self.query, self.key, self.value)
    )
    logits = jnp.einsum(
      'nqc,nkc->nqk', query, key, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(logits * c**-0.5)
    y = jnp.einsum('nqk,nkc->nqc', weights, value.astype(jnp.float32))
    return x + self.out(y.astype(x.dtype).reshape(n, h, w, c))
