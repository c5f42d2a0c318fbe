"""Bytes that a compiled program moves, read from its text (HLO).

An instruction counts as often as the loops around it run. Of HBM, what an
instruction reads and writes counts, but not what the compiler keeps in a
chip's other memories (`S(1)` in a layout), and of a slice no more than it has.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16}
_SHAPE = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(
  r'\s+(ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)'
)
_HEADER = re.compile(r'(ENTRY )?%([\w.\-]+) \(.*\{$')
_MOVES_NOTHING = (
  'after-all',
  'bitcast',
  'conditional',
  'constant',
  'copy-done',
  'get-tuple-element',
  'parameter',
  'slice-done',
  'tuple',
  'while',
)
_READS_A_PART = ('dynamic-slice', 'gather', 'slice')
# Bytes that a device receives, from those of the result and the group's size.
_RECEIVED = {
  'all-gather': lambda size, n: size * (n - 1) / n,
  'all-reduce': lambda size, n: 2 * size * (n - 1) / n,
  'all-to-all': lambda size, n: size * (n - 1) / n,
  'collective-permute': lambda size, n: size,
  'reduce-scatter': lambda size, n: size * (n - 1),
}

# Who moves what goes from slice to slice, by way of the hosts.
_BETWEEN_SLICES = 'xla_megascale_runtime'

# Inside of a fusion these neither write a result nor read an operand.
_GOES_THROUGH = ('parameter', *_RECEIVED)
_PASSES_ON = ('bitcast', 'tuple', *_RECEIVED)


class Traffic(NamedTuple):
  """Bytes of one run of a program, on one device.

  Attributes:
    hbm: Read from and written to HBM.
    ici: Received from devices of the slice.
    dcn: Received from other slices.
  """

  hbm: float
  ici: float
  dcn: float


class _Instruction(NamedTuple):
  name: str
  result: str
  opcode: str
  operands: list[str]
  text: str
  is_root: bool


_Module = dict[str, list[_Instruction]]


def read_traffic(text: str, devices_per_slice: int) -> Traffic:
  """Adds up the bytes of a compiled module.

  Args:
    text: The module, after all of the compiler's passes.
    devices_per_slice: Devices of a slice, whose ids are consecutive.
  """
  module, entry = _parse(text)
  counts = _executions(module, entry)
  hbm = sum(
    counts[name] * _hbm(module, computation)
    for name, computation in module.items()
    if name in counts
  )
  received = {False: 0.0, True: 0.0}
  for crosses, size in _collectives(module, entry, devices_per_slice):
    received[crosses] += size
  return Traffic(hbm, received[False], received[True])


def _parse(text: str) -> tuple[_Module, str]:
  module: _Module = {}
  entry, current = '', []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      current = module.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
      continue
    match = _INSTRUCTION.match(line)
    if match:
      root, name, result, opcode, rest = match.groups()
      operands = re.findall(r'%([\w.\-]+)', rest.partition(')')[0])
      current.append(
        _Instruction(name, result, opcode, operands, rest, bool(root))
      )
  return module, entry


def _executions(module: _Module, entry: str) -> dict[str, int]:
  """How often the entry and the bodies of its loops run."""
  counts: dict[str, int] = {}

  def visit(name: str, times: int) -> None:
    counts[name] = counts.get(name, 0) + times
    for instruction in module[name]:
      if instruction.opcode == 'while':
        body = _named('body', instruction)
        trips = _trips(module, _named('condition', instruction))
        visit(body, times * trips)
      elif instruction.opcode in ('call', 'conditional'):
        branches = re.findall(
          r'(?:to_apply|true_computation|false_computation)=%([\w.\-]+)',
          instruction.text,
        )
        for branch in branches:
          visit(branch, times)

  visit(entry, 1)
  return counts


def _named(attribute: str, instruction: _Instruction) -> str:
  match = re.search(rf'{attribute}=%([\w.\-]+)', instruction.text)
  return match[1] if match else ''


def _trips(module: _Module, condition: str) -> int:
  """A loop counts from 0 up to the one large constant of its condition."""
  found = [
    int(match[1])
    for instruction in module[condition]
    if instruction.opcode == 'constant'
    and (match := re.match(r'(\d+)\)', instruction.text))
  ]
  return max(found, default=1)


def _sizes(shapes: str) -> Iterator[tuple[int, bool]]:
  """Bytes of each array of a type, and whether it is in HBM."""
  for kind, dimensions, layout in _SHAPE.findall(shapes):
    digits = re.search(r'\d+', kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 0)
    count = math.prod(int(d) for d in dimensions.split(',') if d)
    yield count * bits // 8, 'S(' not in layout


def _in_hbm(shapes: str) -> int:
  return sum(size for size, in_hbm in _sizes(shapes) if in_hbm)


def _hbm(module: _Module, computation: list[_Instruction]) -> float:
  results = {i.name: i.result for i in computation}
  total = 0.0
  for instruction in computation:
    if instruction.opcode in _MOVES_NOTHING or instruction.opcode.endswith(
      '-done'
    ):
      continue
    if instruction.opcode.endswith('-start'):
      total += _started(instruction)
      continue
    inner = _called(module, instruction)
    # What a `send` names as its result is its operand.
    if instruction.opcode != 'send':
      total += _written(instruction, inner, results)
    for place, operand in enumerate(instruction.operands):
      whole = _in_hbm(results.get(operand, ''))
      if whole:
        total += min(whole, _read(module, instruction, place, whole))
  return total


def _called(module: _Module, instruction: _Instruction) -> list[_Instruction]:
  """What a fusion is made of; nothing for other instructions."""
  return module.get(_named('calls', instruction), [])


def _started(instruction: _Instruction) -> int:
  """Bytes of what runs in the background.

  Its result names the source and the destination; of a slice the source is
  more than what is read.
  """
  if instruction.opcode.removesuffix('-start') not in _READS_A_PART:
    return _in_hbm(instruction.result)
  (_, from_hbm), (size, to_hbm), *_ = _sizes(instruction.result)
  return size * (from_hbm + to_hbm)


def _written(
  instruction: _Instruction,
  inner: list[_Instruction],
  results: dict[str, str],
) -> float:
  """Bytes of the result; of an update in place, those of the update."""
  whole = _in_hbm(instruction.result)
  if instruction.opcode == 'dynamic-update-slice':
    return min(whole, _in_hbm(results.get(instruction.operands[1], '')))
  types = {i.name: i.result for i in inner}
  for root in (i for i in inner if i.is_root and i.opcode == 'tuple'):
    # What goes through as it came, e.g. beside a collective under way.
    through = {i.name for i in inner if i.opcode in _GOES_THROUGH}
    whole -= sum(_in_hbm(types[o]) for o in root.operands if o in through)
  updates = [i for i in inner if i.opcode == 'dynamic-update-slice']
  for update in updates:
    size = sum(s for s, _ in _sizes(update.result))
    part = sum(s for s, _ in _sizes(types.get(update.operands[1], '')))
    if part < size <= whole:
      whole -= size - part
  return max(whole, 0)


def _read(
  module: _Module, instruction: _Instruction, place: int, whole: int
) -> float:
  """Bytes that are read of an operand of so many bytes."""
  if instruction.opcode in _READS_A_PART and place == 0:
    return sum(size for size, _ in _sizes(instruction.result))
  if instruction.opcode == 'dynamic-update-slice' and place == 0:
    return 0
  inner = _called(module, instruction)
  names = {
    i.name
    for i in inner
    if i.opcode == 'parameter' and i.text.startswith(f'{place})')
  }
  read = 0.0
  while names:
    users = [i for i in inner if names & {*i.operands}]
    source, names = names, {i.name for i in users if i.opcode == 'bitcast'}
    for user in users:
      if user.opcode in _READS_A_PART:
        read += sum(size for size, _ in _sizes(user.result))
      elif user.opcode == 'fusion':
        read += sum(
          _read(module, user, place, whole)
          for place, operand in enumerate(user.operands)
          if operand in source
        )
      elif user.opcode not in _PASSES_ON and not _updates(user, source):
        return whole
  return read if inner else whole


def _updates(instruction: _Instruction, names: set[str]) -> bool:
  """Whether it overwrites a part of an array of such a name."""
  is_update = instruction.opcode == 'dynamic-update-slice'
  return is_update and instruction.operands[0] in names


def _collectives(
  module: _Module, entry: str, devices_per_slice: int
) -> Iterator[tuple[bool, float]]:
  """Whether each crosses slices, and the bytes that a device receives.

  A collective that runs beside other work is in several instructions, which
  have its channel in common.
  """
  times = _executions_of_all(module, entry)
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
      size = sum(size for size, _ in _sizes(i.result))
      if i.opcode.endswith('-start'):
        size = max((size for size, _ in _sizes(i.result)), default=0)
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


def _received_from_slices(recv: _Instruction) -> float:
  """Bytes of what the hosts of all slices do together for their devices."""
  size, _ = next(_sizes(recv.result))
  kind = re.search(r'transfer_type="(\w+)"', recv.text)
  target = re.search(r'megascale_target="\{([\d,:]+)\}', recv.text)
  opcode = kind[1].lower().replace('_', '-') if kind else ''
  if opcode not in _RECEIVED or not target:
    return size
  first, _, last = target[1].partition(':')
  slices = int(last) - int(first) + 1 if last else first.count(',') + 1
  return _RECEIVED[opcode](size, slices)


def _executions_of_all(module: _Module, entry: str) -> dict[str, int]:
  """How often each computation runs, those inside of fusions too."""
  counts = _executions(module, entry)
  waiting = list(counts)
  while waiting:
    name = waiting.pop()
    for instruction in module[name]:
      for called in re.findall(r'calls=%([\w.\-]+)', instruction.text):
        if called in module and called not in counts:
          counts[called] = counts[name]
          waiting.append(called)
  return counts


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
