"""Reads the prefixes of a batch into a KV cache."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from unifluid_jax import masking
from unifluid_jax.batch import Batch
from unifluid_jax.models.gemma import KVCache
from unifluid_jax.models.unifluid import UniFluid


class Prefilled(NamedTuple):
  """Prefixes of P slots, padded on the left, in a KV cache.

  Attributes:
    cache: KV cache of P slots and those to decode.
    last: Hidden state of each prefix's last slot.
    valid: False at the padding.
    length: Slots of each prefix without padding: the next position.
  """

  cache: KVCache
  last: Float[Array, 'B D']
  valid: Bool[Array, 'B P']
  length: Int[Array, ' B']


def prefill(model: UniFluid, prefix: Batch, more: int) -> Prefilled:
  """Runs the model over prefixes, see `data.packing.prefix_batch`.

  Args:
    model: The model.
    prefix: One prefix per row, without targets.
    more: Slots to reserve after the prefixes.
  """
  rows, length = prefix.token_ids.shape
  tokens = model.tokens
  no_tokens = jnp.zeros((rows, 0, tokens.count, tokens.dim))
  no_order = masking.Order(
    jnp.zeros((rows, 0, tokens.count), jnp.int32),
    jnp.zeros((rows, 0), jnp.int32),
  )
  x = model.embed_row(prefix, no_tokens, no_order)
  mask = masking.attention_mask(prefix.segment_ids, prefix.mask_ar)
  mask = jnp.pad(mask, ((0, 0), (0, 0), (0, more)))
  cache = model.gemma.init_cache(rows, length + more)
  hidden, filled = model(x, prefix.positions, mask, cache, 0)
  assert filled is not None
  valid = prefix.segment_ids > 0
  return Prefilled(filled, hidden[:, -1], valid, valid.sum(-1))
