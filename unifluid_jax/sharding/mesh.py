"""The device mesh, and where parameters lie on it.

Parameters name logical axes where they are declared; `models.partition` maps
these to the mesh axes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding

from unifluid_jax.sharding.logical_axes import Axes, partition_spec
from unifluid_jax.utils.errors import UserError

MESH_AXES = ('data', 'fsdp', 'tensor')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices of a slice along each mesh axis; one may be -1 for 'the rest'.

  The mesh axis 'data' goes on from slice to slice: what crosses the slower
  network between them is the gradient alone.

  Attributes:
    data: Copies of the parameters in a slice.
    fsdp: Devices that the parameters are split over.
    tensor: Devices that heads, MLP and vocabulary are split over.
    slices: Number of slices; -1 for as many as the devices say, which only
      those of a TPU do.
  """

  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  slices: int = -1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """Lays devices out as the config says, neighbours in the network close by.

  Args:
    config: The mesh.
    devices: The devices; None for those of all processes.

  Raises:
    UserError: The devices do not make up the mesh.
  """
  devices = jax.devices() if devices is None else list(devices)
  slices = _count_slices(config, devices)
  sizes = sizes_in_slice(config, len(devices) // slices)
  if _slices_of(devices) > 1:
    layout = mesh_utils.create_hybrid_device_mesh(
      sizes, (slices, 1, 1), devices, allow_split_physical_axes=True
    )
  else:
    layout = mesh_utils.create_device_mesh(
      (slices * sizes[0], *sizes[1:]), devices, allow_split_physical_axes=True
    )
  auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
  return Mesh(layout, MESH_AXES, axis_types=auto)


def _slices_of(devices: Sequence[Any]) -> int:
  return len({getattr(device, 'slice_index', 0) for device in devices})


def _count_slices(config: MeshConfig, devices: Sequence[Any]) -> int:
  """Number of slices, which must share the devices out evenly."""
  found, count = _slices_of(devices), config.slices
  if count == -1 or found == count:
    return found
  if found > 1:
    raise UserError(
      f'mesh.slices is {count}, but the {len(devices)} devices are of {found} '
      'slices; leave mesh.slices at -1'
    )
  if count < 1 or len(devices) % count:
    raise UserError(
      f'mesh.slices is {count}, which {len(devices)} devices do not make up; '
      f'use {_nearest_divisors(len(devices), count)}'
    )
  return count


def sizes_in_slice(config: MeshConfig, devices: int) -> tuple[int, ...]:
  """Devices of a slice of so many along each axis.

  Raises:
    UserError: They do not make up the mesh.
  """
  sizes = [config.data, config.fsdp, config.tensor]
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and fixed > 0 and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if min(sizes) < 1 or math.prod(sizes) != devices:
    axes = ', '.join(f'{a} {n}' for a, n in zip(MESH_AXES, sizes, strict=True))
    raise UserError(
      f'mesh is {axes}, which the {devices} devices of a slice do not make up: '
      f'with one axis at -1 for the rest, the product of the others may be '
      f'{_nearest_divisors(devices, fixed)}, and not {fixed}'
      if devices % max(fixed, 1) or fixed < 1
      else f'mesh is {axes}, and a slice has {devices} devices; set one axis, '
      'and no more, to -1 for the rest'
    )
  return tuple(sizes)


def _nearest_divisors(number: int, wanted: int) -> str:
  """The divisors below and above a number that is none, to be told."""
  divisors = [n for n in range(1, number + 1) if number % n == 0]
  below = [n for n in divisors if n < wanted][-1:]
  above = [n for n in divisors if n > wanted][:1]
  return ' or '.join(map(str, below + above))


def parameter_sharding(
  mesh: Mesh, axes: Axes, shape: tuple[int, ...]
) -> NamedSharding:
  """Where a parameter lies; an axis that does not divide is not split."""
  return NamedSharding(mesh, partition_spec(mesh, axes, shape))


def abstract_state(mesh: Mesh, state: Any, axes: dict[str, Axes]) -> Any:
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
