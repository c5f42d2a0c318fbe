"""SigLIP's image encoder, without its pooling head.

Sources: google-research/big_vision, models/vit.py; SigLIP (arXiv 2303.15343).

Legend: n images, S image side in pixels, M patches, D width.
"""

import dataclasses

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from unifluid_jax.models.attention import attend
from unifluid_jax.models.norms import LayerNorm
from unifluid_jax.models.parameters import constant, fan_in, normal
from unifluid_jax.models.stack import Stack
from unifluid_jax.sharding.logical_axes import constrain
from unifluid_jax.utils.errors import UserError, check_least, check_most

# Patches enter with an RMS of about 1; weaker positions take long to be heard
# when the encoder is trained from scratch.
_POSITION_STD = 0.5


@dataclasses.dataclass(frozen=True)
class SiglipConfig:
  """Shape of the encoder; `sizes.SIGLIP_SIZES` lists the published ones.

  Attributes:
    image_size: S, pixels.
    patch_size: Side of a patch in pixels. What `image_size` has more than
      whole patches, at the right and at the bottom, is not seen.
    width: D.
    layers: Number of blocks.
    heads: Attention heads; divides `width`.
    mlp_dim: Hidden size of the MLP.
    norm_eps: Epsilon of every norm.
  """

  image_size: int
  patch_size: int
  width: int
  layers: int
  heads: int
  mlp_dim: int
  norm_eps: float = 1e-6

  def __post_init__(self):
    sizes = ('patch_size', 'width', 'layers', 'heads', 'mlp_dim')
    check_least('SigLIP', self, 1, *sizes)
    check_most('SigLIP', self, 2**12, 'image_size')
    check_most('SigLIP', self, 2**20, 'width', 'mlp_dim')
    check_most('SigLIP', self, 2**12, 'layers')
    if self.image_size < self.patch_size:
      raise UserError(
        f'SigLIP image_size {self.image_size} is less than its patch_size '
        f'{self.patch_size}; make it larger'
      )
    if self.width % self.heads:
      raise UserError(
        f'SigLIP width {self.width} is not a multiple of heads {self.heads}; '
        'choose one that is'
      )

  @property
  def tokens(self) -> int:
    """Patches of an image."""
    return (self.image_size // self.patch_size) ** 2


def _affine(
  equation: str,
  x: Float[Array, '*n'],
  weight: Float[Array, '*w'],
  bias: Float[Array, '*b'],
) -> Float[Array, '*m']:
  """einsum(x, weight) + bias in x's dtype, summed and biased in float32."""
  product = jnp.einsum(
    equation, x, weight.astype(x.dtype), preferred_element_type=jnp.float32
  )
  return product + bias


class Attention(nnx.Module):
  """Full multi-head self-attention with biases."""

  def __init__(self, config: SiglipConfig, *, rngs: nnx.Rngs):
    width, heads = config.width, config.heads
    head_dim = width // heads
    self.query_key_value = fan_in(
      rngs.params(),
      (width, 3, heads, head_dim),
      ('embed', None, 'heads', 'head_dim'),
      inputs=width,
    )
    self.query_key_value_bias = constant(
      0.0, (3, heads, head_dim), (None, 'heads', 'head_dim')
    )
    self.out = fan_in(
      rngs.params(), (heads, head_dim, width), ('heads', 'head_dim', 'embed')
    )
    self.out_bias = constant(0.0, (width,), ('embed',))

  def __call__(self, x: Float[Array, 'n M D']) -> Float[Array, 'n M D']:
    bias = self.query_key_value_bias[:, None, None]
    projected = _affine(
      'nmd,dchk->cnmhk', x, self.query_key_value[...], bias
    ).astype(x.dtype)
    queries, keys, values = projected
    heads = attend(queries * queries.shape[-1] ** -0.5, keys, values)
    return _affine(
      'nmhk,hkd->nmd', heads, self.out[...], self.out_bias[...]
    ).astype(x.dtype)


class MLP(nnx.Module):
  """Two layers with tanh-GELU between."""

  def __init__(self, config: SiglipConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, config.mlp_dim
    self.up = fan_in(rngs.params(), (width, hidden), ('embed', 'mlp'))
    self.up_bias = constant(0.0, (hidden,), ('mlp',))
    self.down = fan_in(rngs.params(), (hidden, width), ('mlp', 'embed'))
    self.down_bias = constant(0.0, (width,), ('embed',))

  def __call__(self, x: Float[Array, 'n M D']) -> Float[Array, 'n M D']:
    hidden = _affine('nmd,df->nmf', x, self.up[...], self.up_bias[...])
    hidden = jax.nn.gelu(hidden, approximate=True).astype(x.dtype)
    return _affine(
      'nmf,fd->nmd', hidden, self.down[...], self.down_bias[...]
    ).astype(x.dtype)


class Block(nnx.Module):
  """x += attention(norm(x)); x += mlp(norm(x))."""

  def __init__(self, config: SiglipConfig, *, rngs: nnx.Rngs):
    self.attention_norm = LayerNorm(config.width, config.norm_eps)
    self.attention = Attention(config, rngs=rngs)
    self.mlp_norm = LayerNorm(config.width, config.norm_eps)
    self.mlp = MLP(config, rngs=rngs)

  def __call__(self, x: Float[Array, 'n M D']) -> Float[Array, 'n M D']:
    x = x + self.attention(self.attention_norm(x))
    return x + self.mlp(self.mlp_norm(x))


class Siglip(nnx.Module):
  """A pre-norm vision transformer that gives one feature per patch."""

  def __init__(
    self,
    config: SiglipConfig,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    remat: str = 'none',
    unroll: int = 1,
  ):
    """Makes the encoder with fresh float32 parameters.

    Args:
      config: Shape of the encoder.
      rngs: Source of the parameters' keys.
      dtype: Compute dtype.
      remat: What the backward pass keeps of a block, see `stack`.
      unroll: Blocks per iteration of the scan over layers.
    """
    self.config = config
    self.dtype = dtype
    patch, width = config.patch_size, config.width
    self.patch_embedding = fan_in(
      rngs.params(), (patch, patch, 3, width), (None, None, None, 'embed')
    )
    self.patch_bias = constant(0.0, (width,), ('embed',))
    self.position_embedding = normal(
      rngs.params(), (config.tokens, width), (None, 'embed'), _POSITION_STD
    )
    self.stack = Stack(
      lambda rngs: Block(config, rngs=rngs),
      config.layers,
      rngs=rngs,
      remat=remat,
      unroll=unroll,
    )
    self.final_norm = LayerNorm(width, config.norm_eps)

  def __call__(self, images: Float[Array, 'n S S 3']) -> Float[Array, 'n M D']:
    """Features of the patches, in raster order, after the final norm.

    Args:
      images: RGB in [-1, 1].

    Raises:
      UserError: The images are not of the config's size.
    """
    patch, size = self.config.patch_size, self.config.image_size
    if images.shape[1] != size:
      raise UserError(
        f'SigLIP got images of {images.shape[1]} px but its image_size is '
        f'{size}; make them equal'
      )
    # A convolution whose stride is its kernel is a product with patches.
    seen = size - size % patch
    patches = einops.rearrange(
      images[:, :seen, :seen].astype(self.dtype),
      'n (h p) (w q) c -> n (h w) (p q c)',
      p=patch,
      q=patch,
    )
    weight = self.patch_embedding[...].reshape(-1, self.config.width)
    offset = self.patch_bias[...] + self.position_embedding[...]
    x = _affine('nmp,pd->nmd', patches, weight, offset).astype(self.dtype)
    axes = ('rows', None, None)
    x, _ = self.stack(
      constrain(x, axes),
      lambda block, x, _: (constrain(block(x), axes), None),
    )
    return self.final_norm(x)
