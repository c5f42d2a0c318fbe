"""Sums over the rows of a batch, which are divided among copies and moments.

rows of a step
  copy 0 of the weights        copy 1                 mesh axis 'data'
    microbatch 0, 1, ...         microbatch 0, 1, ...  one after another
      sum of each, added up        likewise
  \\____________________ one sum over the copies ____/
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from unifluid_jax.sharding.logical_axes import REPLICA_AXIS
from unifluid_jax.sharding.microbatches import split_rows

T = TypeVar('T')


def sum_over_rows(
  function: Callable[..., T], microbatches: int
) -> Callable[..., T]:
  """Sums a function over microbatches and replicas.

  Replicas lie along the mesh axis 'data', as slices do. They communicate only
  the final sum.

  Args:
    function: Returns sums over rows as a pytree of arrays. Its last argument is
      a pytree of arrays of rows; the others are shared by all rows.
    microbatches: Microbatches of a replica.
  """

  def over_microbatches(*args):
    *shared, rows = args
    if microbatches == 1:
      return function(*args)

    def add(total, part):
      return jax.tree.map(jnp.add, total, function(*shared, part)), None

    parts = jax.tree.map(lambda x: split_rows(x, microbatches), rows)
    one = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(function, *shared, one),
    )
    return jax.lax.scan(add, zeros, parts)[0]

  def over_replicas(*args):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[REPLICA_AXIS] == 1:
      return over_microbatches(*args)
    whole, rows = PartitionSpec(), PartitionSpec(REPLICA_AXIS)
    return jax.shard_map(
      lambda *args: jax.lax.psum(over_microbatches(*args), REPLICA_AXIS),
      mesh=mesh,
      in_specs=(*(whole for _ in args[1:]), rows),
      out_specs=whole,
      axis_names={REPLICA_AXIS},
      check_vma=False,
    )(*args)

  return over_replicas
