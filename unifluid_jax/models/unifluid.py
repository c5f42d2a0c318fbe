"""UniFluid (arXiv 2503.13436): one Gemma over text and continuous image tokens.

Inputs: Gemma embeds texts, a SigLIP encoder and a linear connector embed
understanding images, and a linear layer embeds the VAE tokens of generated
images. Outputs: Gemma's tied softmax head predicts texts, a diffusion head
predicts image tokens. The source of an edit is an understanding image; its VAE
tokens are also added to the inputs that predict the tokens at its positions.

Legend: B rows, L slots, D width, T text targets, U, E and G images of a row,
N tokens of a generated image, Z dimensions of a token, M soft tokens of an
understanding image.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from unifluid_jax import masking
from unifluid_jax.batch import Batch, Kind
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.models import parameters
from unifluid_jax.models.diffusion_head import (
  DiffusionHead,
  DiffusionHeadConfig,
)
from unifluid_jax.models.gemma import Gemma, GemmaConfig, KVCache
from unifluid_jax.models.latents import to_signed_unit
from unifluid_jax.models.norms import RMSNorm
from unifluid_jax.models.siglip import Siglip, SiglipConfig
from unifluid_jax.models.stack import REMAT_POLICIES
from unifluid_jax.sharding.logical_axes import constrain, look_up
from unifluid_jax.utils.errors import UserError, check_least, check_most

# Image inputs and texts share Gemma's residual stream, whose text embeddings
# have an RMS of about 1 after their sqrt(D) factor; positions start below it.
_POSITION_STD = 0.5


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape of UniFluid, and its diffusion.

  Attributes:
    gemma: The decoder.
    encoder: The image encoder for understanding.
    head: The diffusion head.
    decoding: 'causal' or 'masked', see `masking`.
    objective: 'ddpm' or 'flow', see `diffusion.objectives`.
    source_tokens: Whether edits get the source's VAE tokens besides the soft
      tokens of the image encoder; see `UniFluid.target_embedding`.
    patch: Side of the group of latents that makes an image token.
    dtype: Compute dtype.
    fused_attention: Whether TPUs use the kernel of `models.fused_attention`
      if the shapes allow it.
    remat: What the backward pass keeps of a block, see `models.stack`.
    unroll: Blocks per iteration of the scan over layers.
  """

  gemma: GemmaConfig
  encoder: SiglipConfig
  head: DiffusionHeadConfig
  decoding: str = 'causal'
  objective: str = 'flow'
  source_tokens: bool = False
  patch: int = 2
  dtype: str = 'float32'
  fused_attention: bool = True
  remat: str = 'none'
  unroll: int = 1

  def __post_init__(self):
    for key, known in (
      ('dtype', parameters.DTYPES),
      ('decoding', masking.DECODINGS),
      ('remat', tuple(REMAT_POLICIES)),
    ):
      value = getattr(self, key)
      if value not in known:
        raise UserError(f'model.{key} is {value!r}; it must be one of {known}')
    check_least('model', self, 1, 'patch', 'unroll')
    check_most('model', self, 2**12, 'patch', 'unroll')
    make_objective(self.objective)  # Rejects unknown objectives.


@dataclasses.dataclass(frozen=True)
class ImageTokens:
  """Sizes of a generated image's tokens, and the token that starts an image.

  Attributes:
    count: N, tokens of an image.
    dim: Z, dimensions of a token.
    boi_id: Vocabulary id of the beginning-of-image token (BOI).
  """

  count: int
  dim: int
  boi_id: int


class ImageTargets(NamedTuple):
  """Targets of the diffusion head: hidden state -> token, with a weight.

  `sources` are the source's tokens at the same positions, for edits.
  """

  hidden: Float[Array, 'B W D']
  tokens: Float[Array, 'B W Z']
  weights: Float[Array, 'B W']
  sources: Float[Array, 'B W Z'] | None


class UniFluid(nnx.Module):
  """The model, without the VAE."""

  def __init__(
    self, config: ModelConfig, tokens: ImageTokens, *, rngs: nnx.Rngs
  ):
    """Creates the model with fresh parameters.

    Args:
      config: Shape of the model.
      tokens: Sizes of its image tokens.
      rngs: Source of the parameters' keys.
    """
    self.config = config
    self.tokens = tokens
    width = config.gemma.width
    kwargs: dict[str, Any] = {
      'dtype': jnp.dtype(config.dtype),
      'remat': config.remat,
      'unroll': config.unroll,
      'rngs': rngs,
    }
    fused = config.fused_attention
    self.gemma = Gemma(config.gemma, fused=fused, **kwargs)
    self.encoder = Siglip(config.encoder, **kwargs)
    self.connector = parameters.fan_in(
      rngs.params(), (config.encoder.width, width), ('encoder_embed', 'embed')
    )
    self.connector_bias = parameters.constant(0.0, (width,), ('embed',))
    self.token_in = parameters.fan_in(
      rngs.params(), (tokens.dim, width), (None, 'embed')
    )
    self.token_norm = RMSNorm(width, config.gemma.norm_eps)
    grid = (tokens.count, width)
    self.known_positions = parameters.normal(
      rngs.params(), grid, (None, 'embed'), _POSITION_STD
    )
    self.target_positions = parameters.normal(
      rngs.params(), grid, (None, 'embed'), _POSITION_STD
    )
    if config.source_tokens:
      self.source_in = parameters.fan_in(
        rngs.params(), (tokens.dim, width), (None, 'embed')
      )
    if config.decoding == masking.MASKED:
      self.mask_token = parameters.normal(
        rngs.params(), (width,), ('embed',), 1.0
      )
    self.head = DiffusionHead(
      config.head,
      token_dim=tokens.dim,
      condition_dim=width,
      output_channels=make_objective(config.objective).output_channels(
        tokens.dim
      ),
      edits=config.source_tokens,
      rngs=rngs,
    )

  # Inputs ------------------------------------------------------------------

  def embed_understanding(
    self, images: Float[Array, '*n S S 3']
  ) -> Float[Array, '*n M D']:
    """Encodes images in [-1, 1] to soft tokens, unscaled as in PaliGemma."""
    lead = images.shape[:-3]
    features = self.encoder(images.reshape(-1, *images.shape[-3:]))
    soft = features @ self.connector[...].astype(features.dtype)
    soft = soft + self.connector_bias[...].astype(features.dtype)
    return soft.reshape(*lead, *soft.shape[1:])

  def embed_tokens(
    self,
    tokens: Float[Array, '*n Z'],
    positions: Int[Array, '*n'],
  ) -> Float[Array, '*n D']:
    """Embeds known image tokens with their grid positions."""
    projected = self.token_norm(tokens @ self.token_in[...])
    return projected + look_up(self.known_positions[...], positions)

  def embed_boi(self) -> Float[Array, ' D']:
    """Embeds BOI, the input before an image's first token."""
    return self.gemma.embed(jnp.full((1, 1), self.tokens.boi_id))[0, 0]

  def target_embedding(
    self,
    target: Int[Array, '*B J'],
    sources: Float[Array, '*B N Z'] | None = None,
  ) -> Float[Array, '*B J D']:
    """Embeds the grid position that a slot predicts.

    For edits, the source's token at that position is added. The head receives
    that token, too.

    Args:
      target: Grid positions.
      sources: Tokens of the sources, raster order; zeros where an image has
        none.
    """
    embedding = look_up(self.target_positions[...], target)
    if sources is None:
      return embedding
    return embedding + _take(sources, target) @ self.source_in[...]

  def image_inputs(
    self,
    tokens: Float[Array, '*B N Z'],
    order: masking.Order,
    sources: Float[Array, '*B N Z'] | None = None,
  ) -> Float[Array, '*B N D']:
    """Returns teacher-forced inputs of image blocks; `masking` has figures.

    Args:
      tokens: Tokens in raster order.
      order: Decoding order of each image.
      sources: Tokens of the sources, see `target_embedding`.
    """
    positions = order.positions
    if self.config.decoding == masking.MASKED:
      raster = jnp.broadcast_to(jnp.arange(self.tokens.count), positions.shape)
      known = self.embed_tokens(tokens, raster)
      visible = masking.is_visible(order)[..., None]
      inputs = jnp.where(visible, known, self.mask_token[...])
      return inputs + self.target_embedding(raster, sources)
    inputs = self.embed_tokens(
      _take(tokens, positions[..., :-1]), positions[..., :-1]
    )
    boi = jnp.broadcast_to(
      self.embed_boi().astype(inputs.dtype),
      (*inputs.shape[:-2], 1, inputs.shape[-1]),
    )
    inputs = jnp.concatenate([boi, inputs], axis=-2)
    return inputs + self.target_embedding(positions, sources)

  def embed_row(
    self,
    batch: Batch,
    tokens: Float[Array, 'B G N Z'],
    order: masking.Order,
    sources: Float[Array, 'B G N Z'] | None = None,
  ) -> Float[Array, 'B L D']:
    """Embeds packed rows.

    Args:
      batch: The rows; pixels of generated and source images are ignored.
      tokens: Tokens of the generated images, raster order.
      order: Decoding order of each image.
      sources: Tokens of their sources, see `sources_of_targets`.
    """
    length = batch.token_ids.shape[1]
    x = self.gemma.embed(batch.token_ids)
    kind = batch.kind[..., None]
    if batch.understanding_slots.shape[1]:
      soft = self.embed_understanding(
        to_signed_unit(batch.understanding_images)
      )
      index = masking.image_index(
        batch.understanding_slots, soft.shape[2], length
      )
      x = jnp.where(
        kind == Kind.UNDERSTANDING, _gather(soft, index).astype(x.dtype), x
      )
    if batch.generated_slots.shape[1]:
      inputs = self.image_inputs(tokens, order, sources)
      index = masking.image_index(
        batch.generated_slots, self.tokens.count, length
      )
      x = jnp.where(
        kind == Kind.GENERATED, _gather(inputs, index).astype(x.dtype), x
      )
    return x

  # The transformer -----------------------------------------------------------

  def __call__(
    self,
    x: Float[Array, 'B L D'],
    positions: Int[Array, 'B L'],
    mask: Bool[Array, 'B L S'],
    cache: KVCache | None = None,
    index: Int[Array, ''] | int = 0,
  ) -> tuple[Float[Array, 'B L D'], KVCache | None]:
    """Returns Gemma's final hidden states, and the updated cache if given."""
    return self.gemma(x, positions, mask, cache, index)

  def row_hidden_states(
    self,
    batch: Batch,
    tokens: Float[Array, 'B G N Z'],
    order: masking.Order,
    sources: Float[Array, 'B G N Z'] | None = None,
  ) -> Float[Array, 'B L D']:
    """Returns teacher-forced hidden states of packed rows; see `embed_row`."""
    mask_ar = batch.mask_ar
    if self.config.decoding == masking.MASKED:
      mask_ar = masking.open_image_blocks(
        mask_ar, batch.kind, batch.generated_slots
      )
    mask = masking.attention_mask(batch.segment_ids, mask_ar)
    x = self.embed_row(batch, tokens, order, sources)
    return self(x, batch.positions, mask)[0]

  # Targets -------------------------------------------------------------------

  def text_hidden(
    self, hidden: Float[Array, 'B L D'], slots: Int[Array, 'B T']
  ) -> Float[Array, 'B T D']:
    """Returns the hidden states at the text targets."""
    return _take(hidden, slots)

  def text_logits(
    self, hidden: Float[Array, 'B L D'], slots: Int[Array, 'B T']
  ) -> Float[Array, 'B T V']:
    """Returns the logits at the text targets only."""
    return self.gemma.logits(self.text_hidden(hidden, slots))

  def image_targets(
    self,
    hidden: Float[Array, 'B L D'],
    batch: Batch,
    tokens: Float[Array, 'B G N Z'],
    order: masking.Order,
    sources: Float[Array, 'B G N Z'] | None = None,
  ) -> ImageTargets:
    """Pairs each hidden state of an image slot with the token it predicts."""
    rows, images, count, _ = tokens.shape
    offsets = jnp.arange(count)
    present = jnp.broadcast_to(
      (batch.generated_slots >= 0)[..., None], (rows, images, count)
    )
    slots = jnp.maximum(batch.generated_slots, 0)[..., None] + offsets
    is_masked = self.config.decoding == masking.MASKED
    if is_masked:
      present = present & ~masking.is_visible(order)
    flat = (rows, images * count)

    def in_slot_order(values):
      values = values if is_masked else _take(values, order.positions)
      return values.reshape(*flat, -1)

    return ImageTargets(
      _take(hidden, slots.reshape(flat)),
      in_slot_order(tokens),
      present.reshape(flat).astype(jnp.float32),
      None if sources is None else in_slot_order(sources),
    )


def sources_of_targets(
  batch: Batch, sources: Float[Array, 'B E N Z']
) -> Float[Array, 'B G N Z']:
  """Returns the source of each generated image; zeros without one."""
  becomes = batch.generated_slots[..., None] == batch.source_slots[:, None]
  becomes &= batch.source_slots[:, None] >= 0
  return jnp.einsum('bge,benz->bgnz', becomes.astype(sources.dtype), sources)


def _take(
  values: Float[Array, 'B *n K C'], index: Int[Array, 'B *n J']
) -> Float[Array, 'B *n J C']:
  """Takes values of each row by index.

  The constraint keeps values whole along other axes than rows: otherwise XLA
  moves them, and aborts on a mesh of three axes.
  """
  axes = ('rows', *(None,) * (values.ndim - 1))
  found = jnp.take_along_axis(
    constrain(values, axes), index[..., None], axis=-2
  )
  return constrain(found, axes)


def _gather(
  images: Float[Array, 'B M N D'], index: Int[Array, 'B L']
) -> Float[Array, 'B L D']:
  rows, count, tokens, width = images.shape
  flat = images.reshape(rows, count * tokens, width)
  return _take(flat, jnp.maximum(index, 0))
