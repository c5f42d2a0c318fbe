"""Slices as libtpu describes them, in a process of its own."""

import sys

import pytest

from tests import process

pytestmark = pytest.mark.slow

# Prepared as for planning, before anything asks JAX for a device.
_START = """
import jax
from unifluid_jax.utils.chips import CHIPS
from unifluid_jax.utils.errors import UserError
from unifluid_jax.planning import topology
topology.prepare()
"""


def run(script):
  command = [sys.executable, '-c', _START + script]
  with process.Child(command, process.ENVIRONMENT, None) as child:
    assert child.wait() == 0, child.output


def test_devices_of_slices():
  """A chip is one device, also with two cores; but TPU7x's is two."""
  run("""
for name, chips, devices in (
  ('v4:2x2x1', 4, 4), ('v5p:2x2x1', 4, 4), ('tpu7x:2x2x1', 4, 8),
  ('v5e:1x1', 1, 1), ('v6e:1x1', 1, 1), ('v4:1x1x1', 1, 1), ('v5e:2x4', 8, 8),
):
  slices = topology.describe(name)
  assert (slices.chips, len(slices.devices)) == (chips, devices), slices
""")


def test_programs_may_use_as_much_hbm_as_the_compiler_says():
  run("""
from unifluid_jax.planning.device_memory import read_overflow
for name, chip in CHIPS.items():
  slices = topology.describe(f'{name}:{"x".join("221"[: chip.axes])}')
  place = jax.sharding.SingleDeviceSharding(slices.devices[0])
  x = jax.ShapeDtypeStruct((2**38,), 'float32', sharding=place)
  try:
    jax.jit(jax.numpy.sin).lower(x).compile()
  except jax.errors.JaxRuntimeError as error:
    limit = read_overflow(str(error)).limit
  cores = len(slices.devices) // slices.chips
  assert abs(limit * cores - chip.hbm_gib) < 0.01, (name, limit)
""")


def test_shapes_that_are_offered_are_taken():
  run("""
import itertools
for name, chip in CHIPS.items():
  for shape in itertools.product('129', repeat=chip.axes):
    try:
      topology.describe(f'{name}:{"x".join(shape)}')
    except UserError as error:
      near = str(error).partition('near it: ')[2].split(', ')
      assert len(near) == 2, error
      for offered in near:
        topology.describe(offered)
""")
