"""The mesh, and where parameters lie: layouts and numbers that do not divide.

Devices are made up: only their numbers and slices matter.
"""

import dataclasses

import numpy as np
import pytest

from unifluid_jax.sharding.mesh import MeshConfig, make_mesh
from unifluid_jax.sharding.process_rows import check_rows
from unifluid_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Device:
  """What a mesh is made by."""

  id: int
  slice_index: int
  platform: str = 'made up'
  device_kind: str = 'made up'
  process_index: int = 0


def devices(slices: int = 1, each: int = 8) -> list[Device]:
  """Devices of several slices, in the order of an inattentive runtime."""
  found = [Device(i, i // each) for i in range(slices * each)]
  return found[::2] + found[1::2]


def slices_of(mesh) -> np.ndarray:
  return np.vectorize(lambda device: device.slice_index)(mesh.devices)


@pytest.mark.parametrize(
  ('config', 'shape'),
  [
    (MeshConfig(), (1, 8, 1)),
    (MeshConfig(data=-1, fsdp=1), (8, 1, 1)),
    (MeshConfig(tensor=2), (1, 4, 2)),
    (MeshConfig(slices=2), (2, 4, 1)),
    (MeshConfig(slices=2, data=2, tensor=2), (4, 1, 2)),
  ],
)
def test_the_rest_goes_to_the_open_axis(config, shape):
  mesh = make_mesh(config, devices())
  assert mesh.devices.shape == shape
  assert mesh.axis_names == ('data', 'fsdp', 'tensor')
  assert {device.id for device in mesh.devices.flat} == {*range(8)}


def test_data_alone_crosses_slices():
  mesh = make_mesh(MeshConfig(data=2, tensor=2), devices(3))
  assert mesh.devices.shape == (6, 2, 2)
  found = slices_of(mesh)
  for index, row in enumerate(found):
    assert (row == index // 2).all()


@pytest.mark.parametrize(
  ('config', 'slices', 'message'),
  [
    (MeshConfig(tensor=3), 1, 'the 8 devices .* others to 2 or 4; it is 3'),
    (MeshConfig(tensor=16), 1, 'the 8 devices .* others to 8; it is 16'),
    (MeshConfig(fsdp=4), 1, '8 devices; set exactly one axis to -1'),
    (MeshConfig(data=-1), 1, 'data -1, fsdp -1.* set exactly one axis'),
    (MeshConfig(fsdp=0), 1, 'fsdp 0.*8 devices'),
    (MeshConfig(slices=3), 1, 'mesh.slices is 3.*8 devices.*use 2 or 4'),
    (MeshConfig(slices=4), 2, '16 devices are of 2 slices'),
  ],
)
def test_a_mesh_that_the_devices_do_not_make_up(config, slices, message):
  with pytest.raises(UserError, match=message):
    make_mesh(config, devices(slices))


def test_rows_that_do_not_divide():
  mesh = make_mesh(MeshConfig(data=2, tensor=2), devices())
  check_rows(mesh, 'data.batch_rows', 12)
  with pytest.raises(
    UserError, match='data.batch_rows is 30.*4 dev.*use 24 or 32'
  ):
    check_rows(mesh, 'data.batch_rows', 30, grad_accum_steps=2)
  with pytest.raises(UserError, match='batch is 3;.*4 device.*use 4$'):
    check_rows(mesh, 'batch', 3)
