"""A stack of equal blocks: parameters on a leading axis, run by one scan.

One compiled body serves every layer, so compile time does not grow with depth
(TPU); `unroll` trades compile time for speed on CPU.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

# What the backward pass keeps of a block: everything; matrix products with
# weights; outputs of sublayers, named `SUBLAYER`; only the block's input.
SUBLAYER = 'sublayer'
REMAT_POLICIES = {
  'none': None,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'sublayers': jax.checkpoint_policies.save_only_these_names(SUBLAYER),
  'full': jax.checkpoint_policies.nothing_saveable,
}


class Stack(nnx.Module):
  """`length` blocks of one kind.

  The blocks' parameters carry a leading axis of that length, whose logical
  name is 'layers'.
  """

  def __init__(
    self,
    make_block: Callable[[nnx.Rngs], nnx.Module],
    length: int,
    *,
    rngs: nnx.Rngs,
    remat: str = 'none',
    unroll: int = 1,
  ):
    """Makes the blocks.

    Args:
      make_block: Builds one block from its random streams.
      length: Number of blocks.
      rngs: Source of the parameters' keys.
      remat: What the backward pass keeps of a block, a key of REMAT_POLICIES.
      unroll: Blocks per iteration of the scan.
    """
    keys = jax.random.split(rngs.params(), length)
    self.blocks = nnx.vmap(lambda key: make_block(nnx.Rngs(key)))(keys)
    for _, variable in nnx.to_flat_state(nnx.state(self.blocks, nnx.Param)):
      variable.set_metadata(
        'logical_axes', ('layers', *variable.get_metadata('logical_axes'))
      )
    self.length = length
    self.remat = remat
    self.unroll = unroll

  def __call__(
    self,
    x: Any,
    call: Callable[[Any, Any, Any], tuple[Any, Any]],
    scanned: Any = None,
  ) -> tuple[Any, Any]:
    """Runs the blocks in order.

    Args:
      x: The carry, e.g. activations [B L D].
      call: (block, x, scanned of this layer) -> (x, output of this layer).
      scanned: Pytree whose leaves have a leading layer axis.

    Returns:
      The carry after the last block, and the stacked outputs.
    """
    graphdef, state = nnx.split(self.blocks)

    def body(x, layer):
      block_state, layer_input = layer
      return call(nnx.merge(graphdef, block_state), x, layer_input)

    if self.remat != 'none':
      body = jax.checkpoint(body, policy=REMAT_POLICIES[self.remat])
    return jax.lax.scan(body, x, (state, scanned), unroll=self.unroll)
