"""Which rows of a batch this process reads, and how they are placed.

Rows are split over the mesh axes 'data' and 'fsdp'. A process reads the rows of
its devices: these need not be neighbors in the mesh, and processes that share a
'tensor' group read the same rows.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unifluid_jax.utils.errors import UserError

ROWS = PartitionSpec(('data', 'fsdp'))


def check_rows(
  mesh: Mesh, name: str, rows: int, grad_accum_steps: int = 1
) -> None:
  """Checks that a batch divides over the mesh.

  Args:
    mesh: The mesh.
    name: Config key of the number of rows.
    rows: Number of rows.
    grad_accum_steps: Number of microbatches.

  Raises:
    UserError: It does not; names the nearest numbers that do.
  """
  unit = mesh.shape['data'] * mesh.shape['fsdp'] * grad_accum_steps
  if rows % unit:
    below, above = rows // unit * unit, -(-rows // unit) * unit
    near = ' or '.join(str(n) for n in (below, above) if n)
    raise UserError(
      f'{name} is {rows}; it must be a multiple of {unit} '
      f'({grad_accum_steps} microbatch(es) on '
      f'{unit // grad_accum_steps} device group(s)): use {near}'
    )


def local_rows(mesh: Mesh, rows: int) -> list[int]:
  """Returns the rows of a batch that this process's devices hold."""
  sharding = NamedSharding(mesh, ROWS)
  parts = sharding.addressable_devices_indices_map((rows,)).values()
  return sorted({row for part in parts if part for row in range(rows)[part[0]]})


def put_rows(mesh: Mesh, batch: Any, rows: int) -> Any:
  """Puts a batch on the mesh as global arrays.

  Args:
    mesh: The mesh.
    batch: Pytree of arrays of this process's `local_rows`, in order.
    rows: Number of rows of the whole batch.
  """
  sharding = NamedSharding(mesh, ROWS)
  position = {row: i for i, row in enumerate(local_rows(mesh, rows))}

  def put(local: np.ndarray) -> jax.Array:
    def part(index):
      start, stop, _ = index[0].indices(rows)
      return local[position[start] : position[stop - 1] + 1]

    shape = (rows, *local.shape[1:])
    places = sharding.addressable_devices_indices_map(shape)
    # An explicit transfer, which the training loop allows.
    arrays = [jax.device_put(part(index), d) for d, index in places.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)

  return jax.tree.map(put, batch)
