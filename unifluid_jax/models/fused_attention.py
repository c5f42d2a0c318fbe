"""Attention within rows as one TPU kernel: scores never leave the chip.

XLA writes the scores [H L L] of a row to HBM and reads them back around the
softmax, forward and backward. Rows are short here, a few hundred slots, so that
a block of queries meets all keys of its row in VMEM: no running maximum is
needed, as it is in FlashAttention (arXiv 2205.14135), whose backward pass this
is: weights are computed again from queries and keys, and

    dS = W * (dW - rowsum(W * dW)),  W = softmax(S),  dW = dO V^T.

Legend: B rows, L slots, H heads, K kv-heads, G = H / K query heads of a
kv-head, E head_dim, Q queries of a block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, DTypeLike, Float, Int8

from unifluid_jax.models.attention import MASK_VALUE
from unifluid_jax.sharding.logical_axes import partition_spec

_LANES = 128
_ROWS = 32  # of a tile of int8, the mask's
# All TPUs since v4 give a kernel 16 MiB of VMEM, of which Mosaic needs some.
_VMEM = 15 * 2**20

# Operands are bfloat16, whatever the precision of float32 products.
_dot = functools.partial(
  jax.lax.dot_general,
  precision=jax.lax.Precision.DEFAULT,
  preferred_element_type=jnp.float32,
)
_INNER = (((1,), (1,)), ((), ()))
_PLAIN = (((1,), (0,)), ((), ()))
_OUTER = (((0,), (0,)), ((), ()))


def fits(
  dtype: DTypeLike,
  length: int,
  heads: int,
  kv_heads: int,
  head_dim: int,
  tensor: int = 1,
) -> bool:
  """Whether the kernel is made for the rows of a decoder.

  Args:
    dtype: Compute dtype; it must be bfloat16.
    length: L.
    heads: H.
    kv_heads: K.
    head_dim: E.
    tensor: Devices that the heads are split over; each must have the query
      heads of its kv-heads. Of a mesh that is not known, -1, none has.
  """
  if dtype != jnp.bfloat16 or tensor < 1:
    return False
  if heads % tensor or kv_heads % tensor:
    return False
  return block_length(length, heads // kv_heads, head_dim) > 0


def block_length(length: int, groups: int, head_dim: int) -> int:
  """Q: as many queries as VMEM has room for; 0 if there is no such number.

  Args:
    length: L.
    groups: G.
    head_dim: E.
  """
  if head_dim % _LANES or length % _LANES:
    return 0
  # Fewer queries would leave most of the matrix unit idle.
  blocks = range(_LANES, length + 1, _ROWS)
  return max(
    (
      block
      for block in blocks
      if length % block == 0 and _vmem(block, length, groups, head_dim) <= _VMEM
    ),
    default=0,
  )


def _vmem(block: int, length: int, groups: int, head_dim: int) -> int:
  """Bytes that the backward pass has in VMEM."""
  queries, keys = block * groups * head_dim, length * head_dim
  scores = block * length
  # Queries and their two gradients, keys, values and theirs, the mask; each
  # while the next or last ones are under way.
  windows = 2 * (3 * 2 * queries + 4 * 2 * keys + scores)
  sums = 2 * 4 * keys
  # Scores, slopes, weights and the gradients of scores and weights.
  return windows + sums + 5 * 4 * scores


def is_fused(
  queries: Float[Array, 'B L H E'], keys: Float[Array, 'B L K E']
) -> bool:
  """Whether the kernel attends, on the mesh that the code is traced for."""
  mesh = jax.sharding.get_abstract_mesh()
  device = mesh.abstract_device
  if device is None or device.platform != 'tpu':
    return False
  _, length, heads, head_dim = queries.shape
  kv_heads, tensor = keys.shape[2], mesh.shape['tensor']
  if not fits(queries.dtype, length, heads, kv_heads, head_dim, tensor):
    return False
  rows = _specs(mesh, queries, keys)[0][0]
  # Rows that do not divide would be computed by every device.
  return rows is not None


def attend_fused(
  queries: Float[Array, 'B L H E'],
  keys: Float[Array, 'B L K E'],
  values: Float[Array, 'B L K E'],
  mask: Bool[Array, 'B L L'],
  *,
  softcap: float | None = None,
  interpret: bool = False,
) -> Float[Array, 'B L H E']:
  """The same as `attention.attend` up to rounding, for shapes that `fits` has.

  Args:
    queries: Scaled queries.
    keys: Keys.
    values: Values.
    mask: True where a query sees a key.
    softcap: Bound of the scores before the mask.
    interpret: Runs the kernel as plain JAX, on any device.
  """
  head_dim = queries.shape[-1]

  def of_a_device(queries, keys, values, mask):
    heads_last = (x.reshape(*x.shape[:2], -1) for x in (queries, keys, values))
    out = _attend(*heads_last, mask, head_dim, softcap, interpret)
    return out.reshape(queries.shape)

  arrays = queries, keys, values, mask.astype(jnp.int8)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return of_a_device(*arrays)
  query_spec, key_spec = _specs(mesh, queries, keys)
  return jax.shard_map(
    of_a_device,
    mesh=mesh,
    in_specs=(query_spec, key_spec, key_spec, PartitionSpec(query_spec[0])),
    out_specs=query_spec,
    axis_names={*mesh.axis_names} - {*mesh.manual_axes},
    check_vma=False,
  )(*arrays)


def _specs(
  mesh: jax.sharding.AbstractMesh,
  queries: Float[Array, 'B L H E'],
  keys: Float[Array, 'B L K E'],
) -> tuple[PartitionSpec, PartitionSpec]:
  return (
    partition_spec(mesh, ('rows', None, 'heads', None), queries.shape),
    partition_spec(mesh, ('rows', None, 'kv_heads', None), keys.shape),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
  queries: Float[Array, 'B L HE'],
  keys: Float[Array, 'B L KE'],
  values: Float[Array, 'B L KE'],
  mask: Int8[Array, 'B L L'],
  head_dim: int,
  softcap: float | None,
  interpret: bool,
) -> Float[Array, 'B L HE']:
  layout = _BlockLayout(queries, keys, head_dim)
  return pl.pallas_call(
    functools.partial(_forward, groups=layout.groups, softcap=softcap),
    grid=layout.grid,
    in_specs=[layout.queries, layout.keys, layout.keys, layout.mask],
    out_specs=layout.queries,
    out_shape=jax.ShapeDtypeStruct(queries.shape, queries.dtype),
    compiler_params=pltpu.CompilerParams(dimension_semantics=['parallel'] * 3),
    interpret=interpret,
    name='attend',
  )(queries, keys, values, mask)


def _save(
  queries: Float[Array, 'B L HE'],
  keys: Float[Array, 'B L KE'],
  values: Float[Array, 'B L KE'],
  mask: Int8[Array, 'B L L'],
  *static: Any,
) -> tuple[Array, tuple[Array, ...]]:
  arrays = queries, keys, values, mask
  return _attend(*arrays, *static), arrays


def _gradients(
  head_dim: int,
  softcap: float | None,
  interpret: bool,
  saved: tuple[Array, ...],
  d_out: Float[Array, 'B L HE'],
) -> tuple[Array, Array, Array, None]:
  queries, keys, values, mask = saved
  layout = _BlockLayout(queries, keys, head_dim)
  grads = pl.pallas_call(
    functools.partial(_backward, groups=layout.groups, softcap=softcap),
    grid=layout.grid,
    in_specs=[
      layout.queries,
      layout.keys,
      layout.keys,
      layout.mask,
      layout.queries,
    ],
    out_specs=[layout.queries, layout.keys, layout.keys],
    out_shape=[
      jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (queries, keys, values)
    ],
    scratch_shapes=[pltpu.VMEM((keys.shape[1], head_dim), jnp.float32)] * 2,
    # Blocks of queries add to the same keys, one after the other.
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=['parallel', 'parallel', 'arbitrary']
    ),
    interpret=interpret,
    name='attend_backward',
  )(queries, keys, values, mask, d_out)
  return *grads, None


_attend.defvjp(_save, _gradients)


class _BlockLayout:
  """The grid (row, kv-head, block of queries), and what a place of it sees."""

  def __init__(
    self,
    queries: Float[Array, 'B L HE'],
    keys: Float[Array, 'B L KE'],
    head_dim: int,
  ):
    rows, length, width = queries.shape
    kv_heads = keys.shape[2] // head_dim
    self.groups = width // keys.shape[2]
    block = block_length(length, self.groups, head_dim)
    self.grid = (rows, kv_heads, length // block)
    self.queries = pl.BlockSpec(
      (1, block, self.groups * head_dim), lambda b, k, i: (b, i, k)
    )
    self.keys = pl.BlockSpec((1, length, head_dim), lambda b, k, i: (b, 0, k))
    self.mask = pl.BlockSpec((1, block, length), lambda b, k, i: (b, i, 0))


def _forward(
  queries: Any,
  keys: Any,
  values: Any,
  mask: Any,
  out: Any,
  *,
  groups: int,
  softcap: float | None,
) -> None:
  """The kernel: heads [Q E] of one kv-head; references to blocks in VMEM."""
  seen = mask[0].astype(jnp.int32) != 0
  for head in _heads(queries, groups):
    weights, _ = _weights(queries[head], keys[0], seen, softcap)
    written = _dot(weights.astype(values.dtype), values[0], _PLAIN)
    out[head] = written.astype(out.dtype)


def _backward(
  queries: Any,
  keys: Any,
  values: Any,
  mask: Any,
  d_out: Any,
  d_queries: Any,
  d_keys: Any,
  d_values: Any,
  key_sum: Any,
  value_sum: Any,
  *,
  groups: int,
  softcap: float | None,
) -> None:
  """The kernel of the gradients; sums over blocks of queries are float32."""

  @pl.when(pl.program_id(2) == 0)
  def _():
    key_sum[...] = jnp.zeros_like(key_sum)
    value_sum[...] = jnp.zeros_like(value_sum)

  seen = mask[0].astype(jnp.int32) != 0
  for head in _heads(queries, groups):
    weights, slope = _weights(queries[head], keys[0], seen, softcap)
    value_sum[...] += _dot(weights.astype(values.dtype), d_out[head], _OUTER)
    d_weights = _dot(d_out[head], values[0], _INNER)
    mean = jnp.sum(weights * d_weights, axis=-1, keepdims=True)
    d_scores = jnp.where(seen, weights * (d_weights - mean) * slope, 0)
    d_scores = d_scores.astype(queries.dtype)
    d_query = _dot(d_scores, keys[0], _PLAIN)
    d_queries[head] = d_query.astype(d_queries.dtype)
    key_sum[...] += _dot(d_scores, queries[head], _OUTER)

  @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
  def _():
    d_keys[0] = key_sum[...].astype(d_keys.dtype)
    d_values[0] = value_sum[...].astype(d_values.dtype)


def _heads(queries: Any, groups: int) -> list[tuple[Any, ...]]:
  """Where the query heads of a kv-head are in a block [1 Q GE]."""
  dim = queries.shape[-1] // groups
  return [(0, slice(None), pl.ds(g * dim, dim)) for g in range(groups)]


def _weights(
  queries: Float[Array, 'Q E'],
  keys: Float[Array, 'L E'],
  seen: Bool[Array, 'Q L'],
  softcap: float | None,
) -> tuple[Float[Array, 'Q L'], Float[Array, 'Q L'] | float]:
  """Softmax of the scores, and the slope of the cap there."""
  scores = _dot(queries, keys, _INNER)
  slope: Float[Array, 'Q L'] | float = 1.0
  if softcap is not None:
    bent = jnp.tanh(scores / softcap)
    scores, slope = softcap * bent, 1 - bent * bent
  scores = jnp.where(seen, scores, MASK_VALUE)
  exps = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  return exps / jnp.sum(exps, axis=-1, keepdims=True), slope
