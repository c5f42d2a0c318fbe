"""The device mesh, and where parameters lie on it.

Parameters name logical axes where they are declared; `sharding.logical_axes`
maps these to mesh axes.
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

  The mesh axis 'data' extends over slices: only gradients cross the slower
  network between them.

  Attributes:
    data: Replicas of the parameters in a slice.
    fsdp: Devices that the parameters are split over.
    tensor: Devices that heads, MLP and vocabulary are split over.
    slices: Number of slices; -1 reads it from the devices (TPUs only).
  """

  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  slices: int = -1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """Arranges devices in a mesh, network neighbors close to each other.

  Args:
    config: The mesh.
    devices: The devices; None for those of all processes.

  Raises:
    UserError: The devices do not form the mesh.
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
  """Returns the number of slices, which must divide the devices."""
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
      f'mesh.slices is {count}, which does not divide {len(devices)} devices; '
      f'use {_nearest_divisors(len(devices), count)}'
    )
  return count


def sizes_in_slice(config: MeshConfig, devices: int) -> tuple[int, ...]:
  """Returns the size of each mesh axis in a slice of `devices` devices.

  Raises:
    UserError: The devices do not form the mesh.
  """
  sizes = [config.data, config.fsdp, config.tensor]
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and fixed > 0 and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if min(sizes) < 1 or math.prod(sizes) != devices:
    axes = ', '.join(f'{a} {n}' for a, n in zip(MESH_AXES, sizes, strict=True))
    raise UserError(
      f'mesh is {axes}, which does not fit the {devices} devices of a slice: '
      f'set one axis to -1, and the product of the others to '
      f'{_nearest_divisors(devices, fixed)}; it is {fixed}'
      if devices % max(fixed, 1) or fixed < 1
      else f'mesh is {axes}, and a slice has {devices} devices; set exactly '
      'one axis to -1 for the rest'
    )
  return tuple(sizes)


def _nearest_divisors(number: int, wanted: int) -> str:
  """Returns the nearest divisors below and above `wanted`, for a message."""
  divisors = [n for n in range(1, number + 1) if number % n == 0]
  below = [n for n in divisors if n < wanted][-1:]
  above = [n for n in divisors if n > wanted][:1]
  return ' or '.join(map(str, below + above))


def parameter_sharding(
  mesh: Mesh, axes: Axes, shape: tuple[int, ...]
) -> NamedSharding:
  """Returns the sharding of a parameter."""
  return NamedSharding(mesh, partition_spec(mesh, axes, shape))


def abstract_state(mesh: Mesh, state: Any, axes: dict[str, Axes]) -> Any:
  """Returns shape, dtype and sharding of each array of a state.

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
  """Returns the shardings of abstract arrays, for `jax.jit`."""
  return jax.tree.map(lambda target: target.sharding, targets)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
  """Traces a function under the abstract mesh that `constrain` reads."""

  @functools.wraps(function)
  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return traced
