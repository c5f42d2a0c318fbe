"""The cache of keys and values that autoregressive decoding reads.

Legend: B rows, L slots that are written, S slots, K kv-heads.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int


class KVCache(NamedTuple):
  """Keys and values of the slots that later slots may attend to.

  Attributes:
    keys: Rotated keys.
    values: Values.
    positions: RoPE position of each slot.
  """

  keys: Float[Array, 'layers B S K head_dim']
  values: Float[Array, 'layers B S K head_dim']
  positions: Int[Array, 'B S']

  def write_positions(
    self, index: Int[Array, ''] | int, positions: Int[Array, 'B L']
  ) -> 'KVCache':
    """Overwrites the positions of slots [index, index + L)."""
    return self._replace(
      positions=jax.lax.dynamic_update_slice(
        self.positions, positions, (0, index)
      )
    )

  def write(
    self,
    layer: Int[Array, ''],
    index: Int[Array, ''] | int,
    keys: Float[Array, 'B L K head_dim'],
    values: Float[Array, 'B L K head_dim'],
  ) -> 'KVCache':
    """Overwrites slots [index, index + L) of one layer."""
    start = (layer, 0, index, 0, 0)
    update = jax.lax.dynamic_update_slice
    return self._replace(
      keys=update(self.keys, keys[None].astype(self.keys.dtype), start),
      values=update(self.values, values[None].astype(self.values.dtype), start),
    )
