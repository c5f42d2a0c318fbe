"""One decoding step over a KV cache: its inputs, and its hidden states.

Legend: B images, R rows (2 B with guidance: conditional first), N tokens of an
image, Z channels of a token, m tokens of a step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from unifluid_jax import masking
from unifluid_jax.models.gemma import KVCache
from unifluid_jax.models.unifluid import UniFluid


class DecodeState(NamedTuple):
  """Images being decoded, one after each prefix.

  Attributes:
    valid: False at the padding of the prefixes, of P slots.
    length: Slots of each prefix without padding.
    positions: Decoding order of each image.
    sources: Tokens of the source images of edits, see
      `UniFluid.target_embedding`.
    cache: KV cache, prefixes first.
    tokens: Tokens in decoding order; zeros where not decoded yet.
  """

  valid: Bool[Array, 'R P']
  length: Int[Array, ' R']
  positions: Int[Array, 'B N']
  sources: Float[Array, 'R N Z'] | None
  cache: KVCache
  tokens: Float[Array, 'B N Z']

  def to_rows(self, values: Shaped[Array, 'B ...']) -> Shaped[Array, 'R ...']:
    """Repeats values for all rows of an image; guidance has 2 rows."""
    branches = self.length.shape[0] // self.positions.shape[0]
    return jnp.tile(values, (branches, *[1] * (values.ndim - 1)))


class Step(NamedTuple):
  """Shape of a decoding step.

  Attributes:
    kept: Inputs that stay in the cache: the tokens of the step before, or BOI.
    queries: m, tokens to decode.
    is_first: Whether this is the first step of an image.
  """

  kept: int
  queries: int
  is_first: bool


def hidden_states(
  model: UniFluid, images: DecodeState, first: Int[Array, ''] | int, step: Step
) -> tuple[Float[Array, 'R m D'], KVCache]:
  """Computes the hidden states of tokens `first`, `first` + 1, ...

  Args:
    model: The model; its config says whether decoding is causal or masked.
    images: The images so far.
    first: Tokens decoded before.
    step: Shape of the step.
  """
  if model.config.decoding == masking.MASKED:
    return _masked(model, images, first, step)
  return _causal(model, images, first, step)


def _causal(model, images, first, step):
  """Feeds the tokens of the last step, and queries the next ones.

  The last known token is fed once per query, each time with another target
  position.
  """
  kept, queries = step.kept, step.queries
  start = first - kept + 1

  def window(values, begin, size):
    return jax.lax.dynamic_slice_in_dim(values, begin, size, axis=1)

  if step.is_first:
    rows = images.positions.shape[0]
    inputs = jnp.broadcast_to(
      model.embed_boi(), (rows, 1, model.config.gemma.width)
    )
  else:
    inputs = model.embed_tokens(
      window(images.tokens, start - 1, kept),
      window(images.positions, start - 1, kept),
    )
  inputs = jnp.concatenate(
    [inputs, jnp.repeat(inputs[:, -1:], queries - 1, axis=1)], axis=1
  )
  targets = window(images.positions, start, kept + queries - 1)
  offsets = start + jnp.minimum(jnp.arange(kept + queries - 1), kept - 1)
  index = images.valid.shape[1] + start
  mask = masking.decoding_mask(
    images.valid, images.cache.positions.shape[1], index, kept, queries
  )
  x = images.to_rows(inputs) + model.target_embedding(
    images.to_rows(targets), images.sources
  )
  hidden, cache = _forward(model, images, x, offsets, mask, index)
  return hidden[:, kept - 1 :], cache


def _masked(model, images, first, step):
  """Feeds the whole image block again; returns some of its masked slots."""
  positions = images.to_rows(images.positions)
  rows, total = positions.shape
  visible = jnp.broadcast_to(jnp.asarray(first), (rows,))
  order = masking.Order(positions, visible)
  tokens = images.to_rows(to_raster(images))
  x = model.image_inputs(tokens, order, images.sources)
  shown = jnp.pad(images.valid, ((0, 0), (0, total)), constant_values=True)
  mask = jnp.broadcast_to(shown[:, None], (rows, total, shown.shape[1]))
  start = images.valid.shape[1]
  hidden, cache = _forward(model, images, x, jnp.arange(total), mask, start)
  targets = jax.lax.dynamic_slice_in_dim(positions, first, step.queries, axis=1)
  return jnp.take_along_axis(hidden, targets[..., None], axis=1), cache


def target_sources(
  images: DecodeState, first: Int[Array, ''] | int, step: Step
) -> Float[Array, 'R m Z'] | None:
  """Takes the source tokens at the positions of the tokens to decode."""
  if images.sources is None:
    return None
  targets = jax.lax.dynamic_slice_in_dim(
    images.positions, first, step.queries, axis=1
  )
  index = images.to_rows(targets)[..., None]
  return jnp.take_along_axis(images.sources, index, axis=1)


def _forward(model, images, x, offsets, mask, index):
  """Runs the decoder on slots `x` at `offsets` after their prefix."""
  hidden, cache = model(
    x, images.length[:, None] + offsets, mask, images.cache, index
  )
  assert cache is not None
  return hidden, cache


def to_raster(images: DecodeState) -> Float[Array, 'B N Z']:
  """Returns the tokens in raster order; zeros where not decoded yet."""
  raster = jnp.argsort(images.positions, axis=-1)
  return jnp.take_along_axis(images.tokens, raster[..., None], axis=1)
