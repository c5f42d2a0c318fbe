"""Bytes that the devices of a compiled program receive from one another."""

import math
import re
from collections.abc import Iterator

import numpy as np

from unifluid_jax.planning.hlo import (
  Instruction,
  Module,
  array_sizes,
  executions_of_all,
)

# Bytes that a device receives, from those of the result and the group's size.
_RECEIVED = {
  'all-gather': lambda size, n: size * (n - 1) / n,
  'all-reduce': lambda size, n: 2 * size * (n - 1) / n,
  'all-to-all': lambda size, n: size * (n - 1) / n,
  'collective-permute': lambda size, n: size,
  'reduce-scatter': lambda size, n: size * (n - 1),
}

COLLECTIVES = tuple(_RECEIVED)
"""Names of the instructions."""

# Transfers between slices, which pass through the hosts.
_BETWEEN_SLICES = 'xla_megascale_runtime'


def received_bytes(
  module: Module, entry: str, devices_per_slice: int
) -> tuple[float, float]:
  """Bytes that a device receives in one run: within its slice, and from others.

  Args:
    module: The module.
    entry: The computation that it starts with.
    devices_per_slice: Devices of a slice, whose ids are consecutive.
  """
  inside, across = 0.0, 0.0
  for crosses, size in _collectives(module, entry, devices_per_slice):
    if crosses:
      across += size
    else:
      inside += size
  return inside, across


def _collectives(
  module: Module, entry: str, devices_per_slice: int
) -> Iterator[tuple[bool, float]]:
  """Whether each crosses slices, and the bytes that a device receives.

  A collective that runs beside other work is in several instructions, which
  have its channel in common.
  """
  times = executions_of_all(module, entry)
  channels: dict[str, tuple[bool, float]] = {}
  for name, computation in module.items():
    if name not in times:
      continue
    for i in computation:
      if i.opcode == 'recv' and _BETWEEN_SLICES in i.text:
        yield True, times[name] * _received_from_slices(i)
      opcode = i.opcode.removesuffix('-start')
      if opcode not in _RECEIVED:
        continue
      group = _group(i.text)
      if len(group) < 2:
        continue
      size: float = sum(size for size, _ in array_sizes(i.result))
      if i.opcode.endswith('-start'):
        # Its result names the operand as well, the larger of a scatter's two.
        size = max((size for size, _ in array_sizes(i.result)), default=0)
        size /= len(group) if opcode == 'reduce-scatter' else 1
      received = _RECEIVED[opcode](size, len(group))
      if opcode == 'all-reduce' and 'cross-replica-sharding' in i.text:
        # The fusion around it keeps the device's own part: a reduce-scatter.
        received /= 2
      channel = re.search(r'channel_id=(\d+)', i.text)
      crosses = len({device // devices_per_slice for device in group}) > 1
      key = channel[1] if channel else f'{name}/{i.name}'
      known = channels.get(key, (crosses, 0.0))
      channels[key] = (crosses, max(known[1], times[name] * received))
  yield from channels.values()


def _received_from_slices(recv: Instruction) -> float:
  """Bytes of what the hosts of all slices do together for their devices."""
  size, _ = next(array_sizes(recv.result))
  kind = re.search(r'transfer_type="(\w+)"', recv.text)
  target = re.search(r'megascale_target="\{([\d,:]+)\}', recv.text)
  opcode = kind[1].lower().replace('_', '-') if kind else ''
  if opcode not in _RECEIVED or not target:
    return size
  first, _, last = target[1].partition(':')
  slices = int(last) - int(first) + 1 if last else first.count(',') + 1
  return _RECEIVED[opcode](size, slices)


def _group(text: str) -> list[int]:
  """Devices of the first group of a collective."""
  pairs = re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', text)
  if pairs:
    return [int(pairs[1]), int(pairs[2])]
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', text)
  if listed:
    return [int(device) for device in listed[1].split(',')]
  iota = re.search(
    r'replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text
  )
  if iota:
    shape = [int(d) for d in iota[3].split(',')]
    ids = np.arange(math.prod(shape)).reshape(shape)
    if iota[4]:
      ids = ids.transpose([int(d) for d in iota[4].split(',')])
    return ids.reshape(int(iota[1]), int(iota[2]))[0].tolist()
  named = re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', text)
  if not named:
    return []
  axes = re.findall(r"'(\w+)'=(\d+)", named[1])
  ids = np.arange(math.prod(int(size) for _, size in axes))
  ids = ids.reshape([int(size) for _, size in axes])
  wanted = re.findall(r"'(\w+)'", named[2])
  index = tuple(slice(None) if name in wanted else 0 for name, _ in axes)
  return ids[index].ravel().tolist()
