"""Which mesh axes a logical axis is split over: one table for all arrays.

Parameters name their logical axes where they are declared, activations where
`constrain` is called. Without the latter XLA may choose to gather a whole batch
on every device instead of a layer's weights.
"""

import math

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

Axes = tuple[str | None, ...]
"""Logical axis names of an array, one per axis."""

REPLICA_AXIS = 'data'
"""The mesh axis along which weights are copied."""

# Logical axis -> mesh axes; what is not listed is not split.
RULES: dict[str, tuple[str, ...]] = {
  'rows': (REPLICA_AXIS, 'fsdp'),
  'rows_of_replica': (REPLICA_AXIS,),
  'embed': ('fsdp',),
  'encoder_embed': ('fsdp',),
  'vocab': ('tensor',),
  'vocab_share': ('tensor', 'fsdp'),
  'heads': ('tensor',),
  'kv_heads': ('tensor',),
  'mlp': ('tensor',),
  'out': ('fsdp',),
}


def partition_spec(
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
  axes: Axes,
  shape: tuple[int, ...],
) -> PartitionSpec:
  """How an array is split; an axis that does not divide is not.

  Args:
    mesh: The mesh.
    axes: Logical name of each axis; a mesh axis goes to the first that asks.
    shape: Shape of the array.
  """
  spec: list[str | tuple[str, ...] | None] = []
  taken: set[str] = set()
  for axis, size in zip(axes, shape, strict=True):
    rule = RULES.get(axis, ()) if axis else ()
    # Of copies that are apart, each has its own rows only.
    rule = tuple(name for name in rule if name not in mesh.manual_axes)
    parts = math.prod(mesh.shape[name] for name in rule)
    if rule and size % parts == 0 and taken.isdisjoint(rule):
      taken.update(rule)
      spec.append(rule if len(rule) > 1 else rule[0])
    else:
      spec.append(None)
  return PartitionSpec(*spec)


def constrain(x: Shaped[Array, '*n'], axes: Axes) -> Shaped[Array, '*n']:
  """Fixes where an activation lies on the mesh that the code is traced for.

  Outside of a mesh, and on a mesh of one device, this is x itself.

  Args:
    x: The activation.
    axes: Logical name of each of its axes, None for one that is whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  spec = partition_spec(mesh, axes, x.shape)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def look_up(
  table: Float[Array, 'V D'], index: Int[Array, '*n']
) -> Float[Array, '*n D']:
  """Rows of a table: `table[index]`.

  Where its width is split, the indices of all rows of a copy go to each share,
  and what is found there to the rows. Left to itself, XLA does the same on a
  mesh of two axes, and aborts on one of three.
  """
  rest = (None,) * (index.ndim - 1)
  if shards(('embed',), table.shape[1:]) == 1:
    return constrain(table[index], ('rows', *rest, None))
  index = constrain(index, ('rows_of_replica', *rest))
  # No computing on indices, which XLA would spread over the rows again.
  found = table.at[index].get(
    mode='promise_in_bounds', wrap_negative_indices=False
  )
  found = constrain(found, ('rows_of_replica', *rest, 'embed'))
  return constrain(found, ('rows', *rest, None))


def shards(axes: Axes, shape: tuple[int, ...]) -> int:
  """In how many parts the first axis is split on the mesh of `constrain`."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return 1
  split = partition_spec(mesh, axes, shape)[0]
  names = (split,) if isinstance(split, str) else split or ()
  return math.prod(mesh.shape[name] for name in names)
