"""Attention over heads, and rotary positions; both without parameters.

Legend: B rows, L queries, S keys, H heads, K kv-heads, R rotary frequencies
(half of head_dim).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Finite, so that a row without any visible key averages all of them instead of
# becoming NaN, forward and backward. The value is google-deepmind/gemma's.
MASK_VALUE = -2.3819763e38


def soft_cap(x: Float[Array, '*n'], cap: float | None) -> Float[Array, '*n']:
  """Bounds x smoothly to (-cap, cap); None leaves it alone (Gemma 2)."""
  return x if cap is None else cap * jnp.tanh(x / cap)


def rotary_angles(
  positions: Int[Array, 'B L'], head_dim: int, theta: float, scaling: float
) -> tuple[Float[Array, 'B L R'], Float[Array, 'B L R']]:
  """Sines and cosines of rotary positions (RoFormer, arXiv 2104.09864).

  Args:
    positions: Position of each slot.
    head_dim: Size of a head.
    theta: Base of the wavelengths, which are 2 pi theta^(2 i / head_dim).
    scaling: Positions are divided by this factor.
  """
  exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
  frequencies = 1 / (theta**exponents * scaling)
  phases = positions[..., None].astype(jnp.float32) * frequencies
  return jnp.sin(phases), jnp.cos(phases)


def rotate(
  x: Float[Array, 'B L H head_dim'],
  sin: Float[Array, 'B L R'],
  cos: Float[Array, 'B L R'],
) -> Float[Array, 'B L H head_dim']:
  """Turns each pair (x[i], x[i + head_dim / 2]) by its angle, in float32."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  sin, cos = sin[..., None, :], cos[..., None, :]
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(
  queries: Float[Array, 'B L H head_dim'],
  keys: Float[Array, 'B S K head_dim'],
  values: Float[Array, 'B S K head_dim'],
  mask: Bool[Array, 'B L S'] | None = None,
  *,
  softcap: float | None = None,
) -> Float[Array, 'B L H head_dim']:
  """Grouped-query attention; query head h reads kv-head h // (H // K).

  The queries are scaled already. Scores, cap and softmax are float32. Both
  products are plain matrix products batched over (B, K): the H // K query
  heads of a kv-head are further rows of one matrix, which is faster on CPU
  than an einsum with a group axis and costs TPU nothing.

  Args:
    queries: Scaled queries.
    keys: Keys.
    values: Values.
    mask: True where a query sees a key; None where all do.
    softcap: Bound of the scores before the mask.
  """
  batch, length, heads, head_dim = queries.shape
  kv_heads = keys.shape[2]
  grouped = (batch, kv_heads, heads // kv_heads * length, head_dim)
  q = queries.transpose(0, 2, 1, 3).reshape(grouped)
  scores = jnp.einsum(
    'bkqh,bskh->bkqs', q, keys, preferred_element_type=jnp.float32
  )
  scores = soft_cap(scores, softcap)
  if mask is not None:
    by_head = scores.reshape(batch, heads, length, -1)
    scores = jnp.where(mask[:, None], by_head, MASK_VALUE).reshape(scores.shape)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  out = jnp.einsum('bkqs,bskh->bkqh', weights, values)
  out = out.reshape(batch, heads, length, head_dim)
  return out.transpose(0, 2, 1, 3)
