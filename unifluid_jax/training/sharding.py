"""The device mesh, and where parameters and rows lie on it.

Parameters name logical axes where they are declared; `models.partition` maps
these to the mesh axes. Rows of a batch are split over 'data' and 'fsdp'.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unifluid_jax.errors import UserError
from unifluid_jax.models.parameters import Axes
from unifluid_jax.models.partition import partition_spec

MESH_AXES = ('data', 'fsdp', 'tensor')

ROWS = PartitionSpec(('data', 'fsdp'))


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each mesh axis; one of them may be -1 for 'the rest'."""

  data: int = 1
  fsdp: int = -1
  tensor: int = 1


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Lays devices out as the config says; 'data' goes across slices.

  Args:
    config: Devices along each axis, over all slices.
    devices: The devices; None for all there are.

  Raises:
    UserError: The axes' product is not the number of devices, or slices cannot
      share the axis 'data'.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.tensor]
  known = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if math.prod(sizes) != len(devices):
    raise UserError(
      f'mesh is {dict(zip(MESH_AXES, sizes, strict=True))}, which does not '
      f'make up the {len(devices)} devices; set one axis to -1 for the rest'
    )
  slices = len({getattr(d, 'slice_index', None) for d in devices})
  if sizes[0] % slices:
    raise UserError(
      f'mesh.data is {sizes[0]}, which {slices} slices cannot share evenly; '
      f'set it to {-(-sizes[0] // slices) * slices}'
    )
  axis_types = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
  if slices == 1:
    return jax.make_mesh(
      tuple(sizes), MESH_AXES, axis_types=axis_types, devices=devices
    )
  grid = mesh_utils.create_hybrid_device_mesh(
    (sizes[0] // slices, *sizes[1:]), (slices, 1, 1), devices
  )
  return Mesh(grid, MESH_AXES, axis_types=axis_types)


def parameter_sharding(
  mesh: Mesh, axes: Axes, shape: tuple[int, ...]
) -> NamedSharding:
  """Where a parameter lies; an axis that does not divide is not split."""
  return NamedSharding(mesh, partition_spec(mesh, axes, shape))


def state_targets(mesh: Mesh, state: Any, axes: dict[str, Axes]) -> Any:
  """Shape, dtype and sharding of each array of a state.

  Args:
    mesh: The mesh.
    state: Pytree of shapes whose parameter-like leaves sit in dictionaries
      keyed by parameter name (parameters, moments, moving averages).
    axes: Logical axes by parameter name.
  """

  def target(path, leaf):
    name = next((str(p.key) for p in path[::-1] if hasattr(p, 'key')), '')
    unnamed = (None,) * len(leaf.shape)
    return jax.ShapeDtypeStruct(
      leaf.shape,
      leaf.dtype,
      sharding=parameter_sharding(mesh, axes.get(name, unnamed), leaf.shape),
    )

  return jax.tree_util.tree_map_with_path(target, state)


def shardings_of(targets: Any) -> Any:
  """The shardings alone, for `jax.jit`."""
  return jax.tree.map(lambda target: target.sharding, targets)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, traced with the mesh that `models.partition` looks at."""

  @functools.wraps(function)
  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return traced


def check_rows(mesh: Mesh, name: str, rows: int, accumulate: int = 1) -> None:
  """Makes sure that a batch of rows divides over the mesh.

  Args:
    mesh: The mesh.
    name: The config's key of the number of rows.
    rows: The number of rows.
    accumulate: Microbatches that they are split into.

  Raises:
    UserError: It does not; the message gives the nearest that do.
  """
  unit = mesh.shape['data'] * mesh.shape['fsdp'] * accumulate
  if rows % unit:
    below, above = rows // unit * unit, -(-rows // unit) * unit
    near = ' or '.join(str(n) for n in (below, above) if n)
    raise UserError(
      f'{name} is {rows}, which {accumulate} microbatch(es) on '
      f'{unit // accumulate} device group(s) cannot share evenly; use {near}'
    )


def put_batch(mesh: Mesh, batch: Any) -> Any:
  """Local rows of this process -> global arrays, rows split over the mesh."""
  sharding = NamedSharding(mesh, ROWS)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )
