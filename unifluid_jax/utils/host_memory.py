"""Compares the memory that a program needs with the memory available."""

import math
import os
import pathlib

import jax

from unifluid_jax.utils.errors import UserError

_GIB = 2**30


def check_memory(needs: dict[str, int], of: str) -> None:
  """Checks that the devices of all processes have enough memory.

  Args:
    needs: Bytes, by what takes them and the keys that set it.
    of: What needs them, for the message.

  Raises:
    UserError: They have less.
  """
  _compare(needs, of, _device_bytes())


def check_host_memory(needs: dict[str, int], of: str) -> None:
  """Checks that this machine has enough memory.

  Args:
    needs: Bytes, by what takes them and what sets it.
    of: What needs them, for the message.

  Raises:
    UserError: It has less.
  """
  _compare(needs, of, _host_bytes())


def _compare(needs: dict[str, int], of: str, room: float) -> None:
  total = sum(needs.values())
  if total <= room:
    return
  largest = sorted(needs.items(), key=lambda item: -item[1])[:3]
  listed = ', '.join(
    f'{what} takes {_gib(size)}'
    for what, size in largest
    if size > 0.01 * total
  )
  raise UserError(
    f'{of} needs at least {_gib(total)} of memory, and there are '
    f'{_gib(room)}: {listed}'
  )


def _gib(size: float) -> str:
  return f'{size / _GIB:,.1f} GiB'


def _device_bytes() -> float:
  """Returns the memory of the devices of all processes; infinite if unknown."""
  local = jax.local_devices()
  if local[0].platform == 'cpu':
    return _host_bytes() * jax.process_count()
  limits = [
    (device.memory_stats() or {}).get('bytes_limit', math.inf)
    for device in local
  ]
  return sum(limits) * jax.process_count()


def _host_bytes() -> float:
  """Memory of this machine, or of the container that this runs in."""
  room: float = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')
  try:
    text = limit.read_text(encoding='ascii').strip()
  except OSError:  # Not of Linux, or of an older one.
    return room
  return min(room, int(text)) if text.isdecimal() else room
