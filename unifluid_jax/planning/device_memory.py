"""HBM of a chip, by what it holds."""

import math
import re
from typing import Any, NamedTuple

import jax

GIB = 2**30
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Overflow(NamedTuple):
  """A program that does not fit, in GiB of a device.

  Attributes:
    needed: HBM that the compiler could not do without.
    limit: HBM that it may use.
    beside: Whether the arguments need room beside that.
  """

  needed: float
  limit: float
  beside: bool


def read_overflow(message: str) -> Overflow | None:
  """What the compiler says of HBM in an error; None if that is not the error.

  Known are "the total memory required for HLO temporaries (15.94G) exceeds
  available HBM (15.75G)" and "Used 20.1G of 15.7G hbm".
  """
  size = r'(\d+(?:\.\d+)?)([KMGT]?)'
  for pattern, beside in (
    (rf'temporaries \({size}\) exceeds available HBM \({size}\)', True),
    (rf'Used {size} of {size} hbm', False),
  ):
    match = re.search(pattern, message)
    if match:
      needed, needed_unit, limit, limit_unit = match.groups()
      return Overflow(
        float(needed) * _UNITS[needed_unit] / GIB,
        float(limit) * _UNITS[limit_unit] / GIB,
        beside,
      )
  return None


def gib_per_device(targets: Any) -> float:
  """GiB that arrays of these shapes and shardings take on each device."""
  leaves = jax.tree.leaves(targets)
  return sum(_bytes(leaf) for leaf in leaves) / GIB


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  assert leaf.sharding is not None
  shape = leaf.sharding.shard_shape(leaf.shape)
  return math.prod(shape) * leaf.dtype.itemsize


def total_gib(compiled: jax.stages.Compiled) -> float:
  """The compiler's own total: what a device holds at a program's peak."""
  stats = compiled.memory_analysis()
  assert stats is not None
  total = (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
    + stats.generated_code_size_in_bytes
  )
  return total / GIB


def find_overflow(
  executable: jax.stages.Compiled | Overflow, arguments: float, limit: float
) -> Overflow | None:
  """What a program is short of with its arguments, or None if it fits.

  The compiler refuses temporaries that do not fit, but does not add what lies
  beside them: the arguments.

  Args:
    executable: What the compiler made, or what it was short of.
    arguments: What its arguments take of a device, in GiB.
    limit: HBM of a device, in GiB.
  """
  if not isinstance(executable, Overflow):
    total = total_gib(executable)
    return Overflow(total, limit, False) if total > limit else None
  if not executable.beside:
    return executable
  return Overflow(executable.needed + arguments, executable.limit, False)
