"""The diffusion head: a small MLP that denoises each image token on its own.

MAR's residual MLP (Li et al., 2024, arXiv 2406.11838, section 4.1): a time
embedding plus the transformer's hidden state modulates every layer norm
(AdaLN). No token sees another one. All of it is float32.

Legend: n tokens, Z channels of a token, D width of the transformer, W width
of the head, O output channels (a prediction, and variance logits if the
objective has any).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unifluid_jax.models import parameters
from unifluid_jax.models.norms import LayerNorm
from unifluid_jax.models.stack import REMAT_POLICIES, Stack
from unifluid_jax.sharding.logical_axes import constrain
from unifluid_jax.utils.errors import UserError, check_least, check_most

_TIME_CHANNELS = 256
_TIME_STD = 0.02
_MAX_PERIOD = 10_000
_NORM_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class DiffusionHeadConfig:
  """Shape of the head.

  Attributes:
    width: Channels of the residual stream.
    depth: Residual blocks.
    remat: What the backward pass keeps of a block, see `models.stack`.
    unroll: Blocks per iteration of the scan over blocks.
  """

  width: int
  depth: int
  remat: str = 'none'
  unroll: int = 1

  def __post_init__(self):
    check_least('model.head', self, 1, 'width', 'depth', 'unroll')
    check_most('model.head', self, 2**16, 'width')
    check_most('model.head', self, 2**12, 'depth', 'unroll')
    if self.remat not in REMAT_POLICIES:
      raise UserError(
        f'model.head.remat is {self.remat!r}; it must be one of '
        f'{tuple(REMAT_POLICIES)}'
      )


class Condition(NamedTuple):
  """What the head knows of its tokens, embedded.

  Attributes:
    hidden: The transformer's hidden states, which modulate the layer norms.
    source: Tokens of the images that are edited, which enter the stream; None
      where nothing is edited.
  """

  hidden: Float[Array, 'n W']
  source: Float[Array, 'n W'] | None


def embed_time(time: Float[Array, ' n']) -> Float[Array, 'n 256']:
  """Sinusoids of a time in [0, 1000]: 128 cosines, then 128 sines."""
  half = _TIME_CHANNELS // 2
  exponents = jnp.arange(half, dtype=jnp.float32) / half
  phases = time[:, None] * jnp.exp(-math.log(_MAX_PERIOD) * exponents)
  return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], axis=-1)


def _xavier(
  rngs: nnx.Rngs, inputs: int, outputs: int, axes: parameters.Axes
) -> nnx.Param:
  value = jax.nn.initializers.xavier_uniform()(
    rngs.params(), (inputs, outputs), jnp.float32
  )
  return nnx.Param(value, logical_axes=axes)


class Linear(nnx.Module):
  """A linear layer around a kernel; its bias starts at zero.

  The kernel's axes after the first are all outputs.
  """

  def __init__(self, kernel: nnx.Param):
    self.kernel = kernel
    self.bias = parameters.constant(
      0.0, kernel.shape[1:], kernel.get_metadata('logical_axes')[1:]
    )

  def __call__(self, x: Float[Array, 'n I']) -> Float[Array, 'n ...']:
    return jnp.tensordot(x, self.kernel[...], 1) + self.bias[...]


def _modulation(width: int, parts: int) -> Linear:
  """Zero-initialized map of the embedding to shift, scale and maybe gate."""
  return Linear(
    parameters.constant(0.0, (width, parts, width), ('embed', None, 'mlp'))
  )


class ResidualBlock(nnx.Module):
  """Modulated LN, Linear, SiLU, Linear, and a gate that starts at zero."""

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    self.norm = LayerNorm(width, _NORM_EPS)
    self.modulation = _modulation(width, 3)
    self.up = Linear(_xavier(rngs, width, width, ('embed', 'mlp')))
    self.down = Linear(_xavier(rngs, width, width, ('mlp', 'embed')))

  def __call__(
    self, x: Float[Array, 'n W'], embedding: Float[Array, 'n W']
  ) -> Float[Array, 'n W']:
    """Updates the stream `x`, modulated by the activated `embedding`."""
    modulation = self.modulation(embedding)
    shift, scale, gate = (modulation[:, part] for part in range(3))
    h = self.norm(x) * (1 + scale) + shift
    return x + gate * self.down(jax.nn.silu(self.up(h)))


class FinalLayer(nnx.Module):
  """Modulated LN and the output layer, both zero-initialized."""

  def __init__(self, width: int, outputs: int):
    self.modulation = _modulation(width, 2)
    self.output = Linear(
      parameters.constant(0.0, (width, outputs), ('embed', None))
    )

  def __call__(
    self, x: Float[Array, 'n W'], embedding: Float[Array, 'n W']
  ) -> Float[Array, 'n O']:
    """Maps the stream `x` to outputs."""
    modulation = self.modulation(embedding)
    shift, scale = modulation[:, 0], modulation[:, 1]
    normed = jax.nn.standardize(x, epsilon=_NORM_EPS)
    return self.output(normed * (1 + scale) + shift)


class DiffusionHead(nnx.Module):
  """The head. Its output is zero until it is trained.

  The hidden state of a token is embedded once, by `embed_condition`, and used
  for every noise level drawn in training and every step of a solver.
  """

  def __init__(
    self,
    config: DiffusionHeadConfig,
    *,
    token_dim: int,
    condition_dim: int,
    output_channels: int,
    edits: bool = False,
    rngs: nnx.Rngs,
  ):
    """Makes the head with fresh parameters.

    Args:
      config: Shape of the head.
      token_dim: Z, channels of a token.
      condition_dim: D, width of the transformer.
      output_channels: O, see `Objective.output_channels`.
      edits: Whether there can be sources, see `embed_condition`.
      rngs: Source of the parameters' keys.
    """
    width = config.width
    self.time_in = Linear(
      parameters.normal(
        rngs.params(), (_TIME_CHANNELS, width), (None, 'mlp'), _TIME_STD
      )
    )
    self.time_out = Linear(
      parameters.normal(
        rngs.params(), (width, width), ('mlp', 'embed'), _TIME_STD
      )
    )
    self.condition = Linear(
      _xavier(rngs, condition_dim, width, ('embed', 'mlp'))
    )
    self.input = Linear(_xavier(rngs, token_dim, width, (None, 'embed')))
    if edits:
      # Without a bias: no source is a source of zeros.
      self.source = _xavier(rngs, token_dim, width, (None, 'embed'))
    self.blocks = Stack(
      lambda rngs: ResidualBlock(width, rngs=rngs),
      config.depth,
      rngs=rngs,
      remat=config.remat,
      unroll=config.unroll,
    )
    self.final = FinalLayer(width, output_channels)

  def embed_condition(
    self,
    hidden: Float[Array, 'n D'],
    sources: Float[Array, 'n Z'] | None = None,
  ) -> Condition:
    """Embeds the condition of each token.

    Args:
      hidden: The transformer's hidden states.
      sources: Tokens at the same places of the images that are edited, zeros
        where there is none. They are further input channels, as in
        InstructPix2Pix (arXiv 2211.09800, section 3.2).
    """
    embedded = self.condition(hidden.astype(jnp.float32))
    if sources is None:
      return Condition(embedded, None)
    return Condition(embedded, sources @ self.source[...])

  def __call__(
    self,
    x_t: Float[Array, 'n Z'],
    time: Float[Array, ' n'],
    condition: Condition,
  ) -> Float[Array, 'n O']:
    """Predicts the target of the objective.

    Args:
      x_t: Noisy tokens.
      time: 0 for data to 1000 for noise; the objectives keep to this unit.
      condition: What `embed_condition` gave.
    """
    embedding = self.time_out(jax.nn.silu(self.time_in(embed_time(time))))
    axes = ('rows', None)
    embedding = constrain(jax.nn.silu(embedding + condition.hidden), axes)
    x = self.input(x_t)
    if condition.source is not None:
      x += condition.source
    x, _ = self.blocks(
      constrain(x, axes),
      lambda block, x, _: (constrain(block(x, embedding), axes), None),
    )
    return self.final(x, embedding)
