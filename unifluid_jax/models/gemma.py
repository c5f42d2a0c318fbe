"""Gemma 1, 2 and 3: the decoder-only transformer.

Sources: google-deepmind/gemma, gm/nn/_modules.py and _transformer.py; Gemma 2
(arXiv 2408.00118) for soft-caps, post-norms and sliding windows; Gemma 3
(arXiv 2503.19786) for QK-norm and a RoPE base per kind of layer.

Legend: B rows, L slots, S slots that can be attended to, D width, H heads,
K kv-heads, V vocabulary.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from unifluid_jax.models.attention import (
  attend,
  rotary_angles,
  rotate,
  soft_cap,
)
from unifluid_jax.models.fused_attention import attend_fused, is_fused
from unifluid_jax.models.kv_cache import KVCache
from unifluid_jax.models.norms import RMSNorm
from unifluid_jax.models.parameters import fan_in
from unifluid_jax.models.stack import SUBLAYER, Stack
from unifluid_jax.sharding.logical_axes import constrain, look_up
from unifluid_jax.utils.errors import UserError, check_least, check_most

_ACTIVATION = ('rows', None, None)

GLOBAL = 'global'
LOCAL = 'local'


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """Shape of a Gemma; `sizes.GEMMA_SIZES` lists the published ones.

  Attributes:
    vocab_size: Rows of the embedding table.
    width: D.
    layers: Number of blocks.
    heads: Query heads.
    kv_heads: Key and value heads; divides `heads`.
    head_dim: Size of a head.
    mlp_dim: Hidden size of the gated MLP.
    attention_softcap: Bound of the attention scores.
    final_softcap: Bound of the logits.
    post_norms: Whether a norm follows each sublayer too (Gemma 2, 3).
    qk_norm: Whether queries and keys are normalized (Gemma 3).
    query_scale: Factor of the queries; None for head_dim^-0.5.
    pattern: GLOBAL or LOCAL for each layer, repeated over the depth.
    window: A LOCAL layer sees keys less than this many positions away; ahead
      of a slot there are some only in a bidirectional prefix or image.
    rope_theta: RoPE base of GLOBAL layers.
    local_rope_theta: RoPE base of LOCAL layers.
    rope_scaling: Divides the positions in GLOBAL layers.
    norm_eps: Epsilon of every norm.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  attention_softcap: float | None = None
  final_softcap: float | None = None
  post_norms: bool = False
  qk_norm: bool = False
  query_scale: float | None = None
  pattern: tuple[str, ...] = (GLOBAL,)
  window: int | None = None
  rope_theta: float = 10_000.0
  local_rope_theta: float = 10_000.0
  rope_scaling: float = 1.0
  norm_eps: float = 1e-6

  def __post_init__(self):
    sizes = ('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'mlp_dim')
    check_least('Gemma', self, 1, *sizes, 'head_dim')
    check_most('Gemma', self, 2**24, 'vocab_size')
    check_most('Gemma', self, 2**20, 'width', 'mlp_dim')
    check_most('Gemma', self, 2**12, 'layers', 'heads', 'head_dim')
    if self.heads % self.kv_heads:
      raise UserError(
        f'Gemma has {self.heads} heads and {self.kv_heads} kv_heads; '
        'kv_heads must divide heads'
      )
    if self.head_dim % 2:
      raise UserError(f'Gemma head_dim is {self.head_dim}; RoPE needs it even')
    if not self.pattern or not {*self.pattern} <= {GLOBAL, LOCAL}:
      raise UserError(
        f'Gemma pattern is {self.pattern}; it must name '
        f'{GLOBAL!r} or {LOCAL!r} for each layer'
      )
    if LOCAL in self.pattern and self.window is None:
      raise UserError('Gemma has local layers but no window; set window')

  @property
  def layer_kinds(self) -> tuple[str, ...]:
    """GLOBAL or LOCAL for each layer."""
    period = len(self.pattern)
    return tuple(self.pattern[i % period] for i in range(self.layers))


class View(NamedTuple):
  """What the layers of one kind see: keys, and sines and cosines of RoPE."""

  mask: Bool[Array, 'B L S']
  sin: Float[Array, 'B L R']
  cos: Float[Array, 'B L R']


class Attention(nnx.Module):
  """Grouped-query self-attention with RoPE."""

  def __init__(self, config: GemmaConfig, fused: bool, *, rngs: nnx.Rngs):
    width, head_dim = config.width, config.head_dim
    heads, kv_heads = config.heads, config.kv_heads
    self.query = fan_in(
      rngs.params(),
      (width, heads, head_dim),
      ('embed', 'heads', 'head_dim'),
      inputs=width,
    )
    self.key_value = fan_in(
      rngs.params(),
      (width, 2, kv_heads, head_dim),
      ('embed', None, 'kv_heads', 'head_dim'),
      inputs=width,
    )
    self.out = fan_in(
      rngs.params(),
      (heads, head_dim, width),
      ('heads', 'head_dim', 'embed'),
    )
    if config.qk_norm:
      self.query_norm = RMSNorm(head_dim, config.norm_eps, 'head_dim')
      self.key_norm = RMSNorm(head_dim, config.norm_eps, 'head_dim')
    self.config = config
    self.fused = fused

  def __call__(
    self,
    x: Float[Array, 'B L D'],
    view: View,
    cache: KVCache | None,
    layer: Int[Array, ''],
    index: Int[Array, ''] | int,
  ) -> tuple[Float[Array, 'B L D'], KVCache | None]:
    """Attends among the L slots, or from them to the slots of the cache."""
    config = self.config
    query_weight = self.query[...].astype(x.dtype)
    key_value_weight = self.key_value[...].astype(x.dtype)
    queries = jnp.einsum('bld,dnh->blnh', x, query_weight)
    key_value = jnp.einsum('bld,dcnh->blcnh', x, key_value_weight)
    keys, values = key_value[:, :, 0], key_value[:, :, 1]
    if config.qk_norm:
      queries, keys = self.query_norm(queries), self.key_norm(keys)
    scale = config.query_scale or config.head_dim**-0.5
    queries = rotate(queries, view.sin, view.cos) * scale
    keys = rotate(keys, view.sin, view.cos)
    if cache is not None:
      cache = cache.write(layer, index, keys, values)
      keys = cache.keys[layer].astype(x.dtype)
      values = cache.values[layer].astype(x.dtype)
    fused = self.fused and cache is None and is_fused(queries, keys)
    heads = (attend_fused if fused else attend)(
      queries, keys, values, view.mask, softcap=config.attention_softcap
    )
    out = jnp.einsum('blnh,nhd->bld', heads, self.out[...].astype(x.dtype))
    return out, cache


class GatedMLP(nnx.Module):
  """GeGLU (arXiv 2002.05202): (gelu(x W_gate) * (x W_up)) W_down."""

  def __init__(self, config: GemmaConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, config.mlp_dim
    self.gate_up = fan_in(
      rngs.params(),
      (width, 2, hidden),
      ('embed', None, 'mlp'),
      inputs=width,
    )
    self.down = fan_in(rngs.params(), (hidden, width), ('mlp', 'embed'))

  def __call__(self, x: Float[Array, 'B L D']) -> Float[Array, 'B L D']:
    gate_up = jnp.einsum('bld,dcf->blcf', x, self.gate_up[...].astype(x.dtype))
    gate, up = gate_up[:, :, 0], gate_up[:, :, 1]
    hidden = jax.nn.gelu(gate, approximate=True) * up
    return hidden @ self.down[...].astype(x.dtype)


class Block(nnx.Module):
  """x += [norm](attention(norm(x))); x += [norm](mlp(norm(x)))."""

  def __init__(self, config: GemmaConfig, fused: bool, *, rngs: nnx.Rngs):
    self.pre_attention_norm = RMSNorm(config.width, config.norm_eps)
    self.attention = Attention(config, fused, rngs=rngs)
    self.pre_mlp_norm = RMSNorm(config.width, config.norm_eps)
    self.mlp = GatedMLP(config, rngs=rngs)
    if config.post_norms:
      self.post_attention_norm = RMSNorm(config.width, config.norm_eps)
      self.post_mlp_norm = RMSNorm(config.width, config.norm_eps)
    self.post_norms = config.post_norms

  def __call__(
    self,
    x: Float[Array, 'B L D'],
    view: View,
    cache: KVCache | None,
    layer: Int[Array, ''],
    index: Int[Array, ''] | int,
  ) -> tuple[Float[Array, 'B L D'], KVCache | None]:
    """Runs the block, see `Attention` for the arguments."""
    attended, cache = self.attention(
      self.pre_attention_norm(x), view, cache, layer, index
    )
    attended = checkpoint_name(attended, SUBLAYER)
    if self.post_norms:
      attended = self.post_attention_norm(attended)
    x = x + attended
    transformed = self.mlp(self.pre_mlp_norm(x))
    transformed = checkpoint_name(transformed, SUBLAYER)
    if self.post_norms:
      transformed = self.post_mlp_norm(transformed)
    return x + transformed, cache


class Gemma(nnx.Module):
  """The transformer and its embedding table, which is the text head too.

  The table starts from N(0, 1/D): embeddings, after their factor sqrt(D), and
  logits, which are products with normalized hidden states, then have a unit
  variance, so that a model can be trained from scratch.
  """

  def __init__(
    self,
    config: GemmaConfig,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    fused: bool = True,
    remat: str = 'none',
    unroll: int = 1,
  ):
    """Makes the model with fresh float32 parameters.

    Args:
      config: Shape of the model.
      rngs: Source of the parameters' keys.
      dtype: Compute dtype.
      fused: Whether TPUs attend by the kernel of `fused_attention`.
      remat: What the backward pass keeps of a block, see `stack`.
      unroll: Blocks per iteration of the scan over layers.
    """
    self.config = config
    self.dtype = dtype
    self.embedding = fan_in(
      rngs.params(),
      (config.vocab_size, config.width),
      ('vocab', 'embed'),
      inputs=config.width,
    )
    self.stack = Stack(
      lambda rngs: Block(config, fused, rngs=rngs),
      config.layers,
      rngs=rngs,
      remat=remat,
      unroll=unroll,
    )
    self.final_norm = RMSNorm(config.width, config.norm_eps)

  def embed(self, token_ids: Int[Array, 'B L']) -> Float[Array, 'B L D']:
    """Text embeddings times sqrt(D), a factor in the compute dtype."""
    scale = jnp.asarray(self.config.width**0.5, self.dtype)
    return look_up(self.embedding[...], token_ids).astype(self.dtype) * scale

  def __call__(
    self,
    x: Float[Array, 'B L D'],
    positions: Int[Array, 'B L'],
    mask: Bool[Array, 'B L S'],
    cache: KVCache | None = None,
    index: Int[Array, ''] | int = 0,
  ) -> tuple[Float[Array, 'B L D'], KVCache | None]:
    """Hidden states of L slots.

    Args:
      x: Inputs of the slots; text ones from `embed`.
      positions: RoPE position of each slot.
      mask: True where a slot sees another. Without a cache these are the L
        slots themselves (S = L), with a cache all S slots of it. A slot that
        sees nothing gets a finite hidden state without a meaning.
      cache: Slots of earlier calls. The L slots are written to it first, at
        [index, index + L), in place of what it held there.
      index: First slot to write; may be traced.

    Returns:
      Hidden states after the final norm, and the cache with the L slots in it
      if there was one.
    """
    key_positions = positions
    if cache is not None:
      cache = cache.write_positions(index, positions)
      key_positions = cache.positions
    kinds = sorted({*self.config.layer_kinds})
    views = [self._view(kind, positions, key_positions, mask) for kind in kinds]

    def call(block, carry, layer):
      number, kind = layer
      view = jax.tree.map(
        lambda *leaves: jax.lax.select_n(kind, *leaves), *views
      )
      x, cache = carry
      x, cache = block(x, view, cache, number, index)
      return (constrain(x, _ACTIVATION), cache), None

    numbers = jnp.arange(self.config.layers)
    kind_of = jnp.array([kinds.index(k) for k in self.config.layer_kinds])
    x = constrain(x.astype(self.dtype), _ACTIVATION)
    (x, cache), _ = self.stack((x, cache), call, (numbers, kind_of))
    return self.final_norm(x), cache

  def _view(
    self,
    kind: str,
    positions: Int[Array, 'B L'],
    key_positions: Int[Array, 'B S'],
    mask: Bool[Array, 'B L S'],
  ) -> View:
    config = self.config
    theta, scaling = config.rope_theta, config.rope_scaling
    if kind == LOCAL:
      theta, scaling = config.local_rope_theta, 1.0
      assert config.window is not None
      # The window also cuts inside a bidirectional prefix, as in
      # google-deepmind/gemma (`_create_sliding_mask`). The PaliGemma of
      # transformers lets a whole prefix see itself in every layer. The two
      # differ only where a prefix is longer than the window, which is 4,096
      # slots in Gemma 2: not at 224 or 448 pixels.
      away = jnp.abs(positions[:, :, None] - key_positions[:, None, :])
      mask = mask & (away < config.window)
    sin, cos = rotary_angles(positions, config.head_dim, theta, scaling)
    return View(mask, sin, cos)

  def logits(
    self,
    hidden: Float[Array, '*n D'],
    table: Float[Array, 'V D'] | None = None,
  ) -> Float[Array, '*n V']:
    """Float32 logits from final hidden states.

    Args:
      hidden: Final hidden states.
      table: Rows of the embedding table; None for the whole vocabulary.
    """
    if table is None:
      table = self.embedding[...]
    logits = jnp.einsum(
      '...d,vd->...v',
      hidden,
      table.astype(hidden.dtype),
      preferred_element_type=jnp.float32,
    )
    return soft_cap(logits, self.config.final_softcap)

  def init_cache(
    self, batch: int, slots: int, dtype: DTypeLike | None = None
  ) -> KVCache:
    """Creates an empty cache; masks must hide slots that are not filled yet.

    Args:
      batch: B.
      slots: S.
      dtype: Dtype of keys and values; None for the compute dtype.
    """
    config = self.config
    shape = (config.layers, batch, slots, config.kv_heads, config.head_dim)
    empty = jnp.zeros(shape, dtype or self.dtype)
    return KVCache(empty, empty, jnp.zeros((batch, slots), jnp.int32))
