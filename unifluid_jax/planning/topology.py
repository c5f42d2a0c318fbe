"""Slices of TPUs that are not there: compile-only devices and their mesh.

libtpu describes any slice on a machine without TPUs and compiles for it. Its
devices have no memory, so nothing can be run on them.
"""

import difflib
import itertools
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from unifluid_jax.utils.chips import CHIPS, Chip, count_chips
from unifluid_jax.utils.errors import UserError

# Libtpu asks no metadata server, lets other processes plan as well, and does
# not warn that it finds no TPU. The type is that of this machine; any will do.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_STDERR_LOG_LEVEL': '3',
}
_SIDES = (2, 4, 8, 16)


def prepare() -> None:
  """Sets what libtpu and JAX's backends read when they start.

  Compiled programs are looked at and not run, so no cache keeps them.
  """
  os.environ.update(_ENVIRONMENT)
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)


class Slices(NamedTuple):
  """Some equal slices.

  Attributes:
    name: As the user wrote it.
    chip: The kind of their chips.
    chips: Number of chips.
    devices: Devices of JAX; a chip may be two.
    number: Number of slices.
  """

  name: str
  chip: Chip
  chips: int
  devices: tuple[jax.Device, ...]
  number: int


def describe(name: str, count: int = 1) -> Slices:
  """Describes slices.

  Args:
    name: Family and shape, e.g. 'v5e:16x16' or 'v5p:4x4x4'.
    count: Number of slices.

  Raises:
    UserError: There is no such slice, or libtpu is not installed.
  """
  match = re.fullmatch(r'(\w+):([1-9]\d*(?:x[1-9]\d*)*)', name)
  if not match or match[1] not in CHIPS:
    given = name.partition(':')[0]
    # Cloud TPU's own name of a v5e is v5litepod.
    known = given.lower().replace('v5litepod', 'v5e')
    family = difflib.get_close_matches(known, CHIPS, 1, 0.3)
    hint = (
      f'; did you mean {family[0]}?' if family and family != [given] else ''
    )
    raise UserError(
      f'--topology={name} must be FAMILY:SHAPE such as v5e:16x16, with one of '
      f'the families {", ".join(CHIPS)}{hint}'
    )
  chip, shape = CHIPS[match[1]], tuple(map(int, match[2].split('x')))
  if len(shape) != chip.axes:
    shown = 'x'.join(['4'] * chip.axes)
    raise UserError(
      f'--topology={name}: a slice of {match[1]} has {chip.axes} dimensions, '
      f'e.g. {match[1]}:{shown}'
    )
  try:
    topology = topologies.get_topology_desc(
      name, 'tpu', **_options(match[1], shape, count)
    )
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    raise UserError(
      f'libtpu knows no topology {name}; near it: {_near(match[1], shape)}'
    ) from error
  except (ImportError, RuntimeError) as error:
    raise UserError(
      "planning needs libtpu: pip install 'unifluid_jax[plan]'"
    ) from error
  devices = tuple(topology.devices)
  return Slices(name, chip, count_chips(devices), devices, count)


def _options(family: str, shape: tuple[int, ...], count: int) -> dict[str, Any]:
  """What libtpu does not take from the name."""
  options: dict[str, Any] = {'num_slices': count} if count > 1 else {}
  if family == 'v4':
    # JAX runs both cores of a chip as one device.
    options['chip_config_name'] = 'megacore'
  if math.prod(shape) == 1:
    # A host has 2x2 chips otherwise, and a slice is made of whole hosts.
    options['chips_per_host_bounds'] = (1, 1, 1)
  return options


def _near(family: str, shape: tuple[int, ...]) -> str:
  """Shapes of one chip, one host or even sides with about as many chips."""
  chips, axes = math.prod(shape), len(shape)
  even = itertools.combinations_with_replacement(_SIDES, axes)
  shapes = {(1, 1, 1)[:axes], (2, 2, 1)[:axes], *even}
  near = sorted(
    (s for s in shapes if max(s) <= 4 * min(s)),
    key=lambda s: (abs(math.log(math.prod(s) / chips)), s),
  )
  return ', '.join(f'{family}:{"x".join(map(str, s))}' for s in near[:2])
