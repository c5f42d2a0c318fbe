"""Maps logical axes to mesh axes: one table for all arrays.

Parameters name their logical axes where they are declared, activations where
`constrain` is called. Without constraints, XLA may gather a whole batch on
every device instead of a layer's weights.
"""

import math

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

Axes = tuple[str | None, ...]
"""Logical axis names of an array, one per axis."""

REPLICA_AXIS = 'data'
"""The mesh axis of data parallelism: its devices hold replicas."""

# Logical axis -> mesh axes; other axes are not split.
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
  """Returns how an array is split; axes that do not divide stay whole.

  Args:
    mesh: The mesh.
    axes: Logical name of each axis; the first one to use a mesh axis gets it.
    shape: Shape of the array.
  """
  spec: list[str | tuple[str, ...] | None] = []
  taken: set[str] = set()
  for axis, size in zip(axes, shape, strict=True):
    rule = RULES.get(axis, ()) if axis else ()
    # Inside shard_map, a replica sees only its own rows.
    rule = tuple(name for name in rule if name not in mesh.manual_axes)
    parts = math.prod(mesh.shape[name] for name in rule)
    if rule and size % parts == 0 and taken.isdisjoint(rule):
      taken.update(rule)
      spec.append(rule if len(rule) > 1 else rule[0])
    else:
      spec.append(None)
  return PartitionSpec(*spec)


def constrain(x: Shaped[Array, '*n'], axes: Axes) -> Shaped[Array, '*n']:
  """Constrains the sharding of an activation on the current abstract mesh.

  Returns x itself without a mesh or on a mesh of one device.

  Args:
    x: The activation.
    axes: Logical name of each axis; None keeps an axis whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  spec = partition_spec(mesh, axes, x.shape)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def look_up(
  table: Float[Array, 'V D'], index: Int[Array, '*n']
) -> Float[Array, '*n D']:
  """Looks up rows of a table: `table[index]`.

  If the width is sharded, each shard looks up the indices of all rows of its
  replica, and the results move to the rows. XLA does this by itself on a mesh
  of two axes, but aborts on one of three.
  """
  rest = (None,) * (index.ndim - 1)
  if shards(('embed',), table.shape[1:]) == 1:
    return constrain(table[index], ('rows', *rest, None))
  index = constrain(index, ('rows_of_replica', *rest))
  # Compute nothing on indices: XLA would shard them over rows again.
  found = table.at[index].get(
    mode='promise_in_bounds', wrap_negative_indices=False
  )
  found = constrain(found, ('rows_of_replica', *rest, 'embed'))
  return constrain(found, ('rows', *rest, None))


def shards(axes: Axes, shape: tuple[int, ...]) -> int:
  """Returns the number of shards of the first axis on the current mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return 1
  split = partition_spec(mesh, axes, shape)[0]
  names = (split,) if isinstance(split, str) else split or ()
  return math.prod(mesh.shape[name] for name in names)
