"""One decoding step over a KV cache: which slots are fed, which are asked.

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
  """DecodeState being written, one after each prefix.

  Attributes:
    valid: False at the padding of the prefixes, of P slots.
    length: Slots of each prefix without padding.
    positions: Order that each image is written in.
    sources: Tokens of the images that are edited, see
      `UniFluid.target_embedding`.
    cache: KV cache, prefixes first.
    written: Tokens in the order that they are written.
  """

  valid: Bool[Array, 'R P']
  length: Int[Array, ' R']
  positions: Int[Array, 'B N']
  sources: Float[Array, 'R N Z'] | None
  cache: KVCache
  written: Float[Array, 'B N Z']

  def to_rows(self, values: Shaped[Array, 'B ...']) -> Shaped[Array, 'R ...']:
    """What all rows of an image share; with guidance there are 2."""
    branches = self.length.shape[0] // self.positions.shape[0]
    return jnp.tile(values, (branches, *[1] * (values.ndim - 1)))


class Step(NamedTuple):
  """Shape of a decoding step.

  Attributes:
    kept: Tokens that the step before wrote, fed for good; at first, BOI.
    queries: m, tokens asked for.
  """

  kept: int
  queries: int


def hidden_states(
  model: UniFluid, images: DecodeState, first: Int[Array, ''] | int, step: Step
) -> tuple[Float[Array, 'R m D'], KVCache]:
  """Hidden states that write the tokens `first`, `first` + 1, ...

  Args:
    model: The model, whose order decides how it is asked.
    images: The images so far.
    first: Tokens written before; a Python 0 for the first step of all.
    step: Shape of the step.
  """
  if model.config.decoding == masking.MASKED:
    return _masked(model, images, first, step)
  return _causal(model, images, first, step)


def _causal(model, images, first, step):
  """Feeds what the last step wrote, and asks for the next tokens.

  The last token known is fed once for each query, each time with another
  target position.
  """
  kept, queries = step
  start = first - kept + 1

  def window(values, begin, size):
    return jax.lax.dynamic_slice_in_dim(values, begin, size, axis=1)

  if isinstance(first, int):
    rows = images.positions.shape[0]
    told = jnp.broadcast_to(
      model.embed_boi(), (rows, 1, model.config.gemma.width)
    )
  else:
    told = model.embed_tokens(
      window(images.written, start - 1, kept),
      window(images.positions, start - 1, kept),
    )
  told = jnp.concatenate(
    [told, jnp.repeat(told[:, -1:], queries - 1, axis=1)], axis=1
  )
  asked = window(images.positions, start, kept + queries - 1)
  offsets = start + jnp.minimum(jnp.arange(kept + queries - 1), kept - 1)
  index = images.valid.shape[1] + start
  mask = masking.decoding_mask(
    images.valid, images.cache.positions.shape[1], index, kept, queries
  )
  x = images.to_rows(told) + model.target_embedding(
    images.to_rows(asked), images.sources
  )
  hidden, cache = _forward(model, images, x, offsets, mask, index)
  return hidden[:, kept - 1 :], cache


def _masked(model, images, first, step):
  """Feeds the whole image block anew, and asks for some of its masked slots."""
  positions = images.to_rows(images.positions)
  rows, total = positions.shape
  visible = jnp.broadcast_to(jnp.asarray(first), (rows,))
  order = masking.Order(positions, visible)
  tokens = images.to_rows(to_raster(images))
  x = model.write_inputs(tokens, order, images.sources)
  shown = jnp.pad(images.valid, ((0, 0), (0, total)), constant_values=True)
  mask = jnp.broadcast_to(shown[:, None], (rows, total, shown.shape[1]))
  start = images.valid.shape[1]
  hidden, cache = _forward(model, images, x, jnp.arange(total), mask, start)
  asked = jax.lax.dynamic_slice_in_dim(positions, first, step.queries, axis=1)
  return jnp.take_along_axis(hidden, asked[..., None], axis=1), cache


def target_sources(
  images: DecodeState, first: Int[Array, ''] | int, step: Step
) -> Float[Array, 'R m Z'] | None:
  """Tokens of the sources at the places of the tokens that are asked for."""
  if images.sources is None:
    return None
  asked = jax.lax.dynamic_slice_in_dim(
    images.positions, first, step.queries, axis=1
  )
  index = images.to_rows(asked)[..., None]
  return jnp.take_along_axis(images.sources, index, axis=1)


def _forward(model, images, x, offsets, mask, index):
  """Slots `x`, `offsets` behind their prefix."""
  hidden, cache = model(
    x, images.length[:, None] + offsets, mask, images.cache, index
  )
  assert cache is not None
  return hidden, cache


def to_raster(images: DecodeState) -> Float[Array, 'B N Z']:
  """The tokens at their places in the grid; zeros where none is written."""
  raster = jnp.argsort(images.positions, axis=-1)
  return jnp.take_along_axis(images.written, raster[..., None], axis=1)
