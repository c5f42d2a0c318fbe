"""Counts the bytes that a compiled program reads from and writes to HBM.

What an instruction reads and writes counts, but not what the compiler keeps in
a chip's other memories (`S(1)` in a layout). Of an array of which an
instruction takes a slice, the slice counts.
"""

from unifluid_jax.planning.collectives import COLLECTIVES
from unifluid_jax.planning.hlo import (
  Instruction,
  Module,
  array_sizes,
  computation_of,
  executions,
)

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

# Inside of a fusion these neither write a result nor read an operand.
_GOES_THROUGH = ('parameter', *COLLECTIVES)
_PASSES_ON = ('bitcast', 'tuple', *COLLECTIVES)


def hbm_bytes(module: Module, entry: str) -> float:
  """Bytes of one run of the program that starts at the computation `entry`."""
  return sum(
    times * _of_computation(module, module[name])
    for name, times in executions(module, entry).items()
  )


def _of_computation(module: Module, computation: list[Instruction]) -> float:
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


def _called(module: Module, instruction: Instruction) -> list[Instruction]:
  """What a fusion is made of; nothing for other instructions."""
  return module.get(computation_of(instruction, 'calls'), [])


def _started(instruction: Instruction) -> int:
  """Bytes of what runs in the background.

  Its result names the operands and the destination; of a slice the source is
  more than what is read.
  """
  if instruction.opcode.removesuffix('-start') not in _READS_A_PART:
    return _in_hbm(instruction.result)
  arrays = list(array_sizes(instruction.result))
  (_, from_hbm), (size, to_hbm) = arrays[0], arrays[len(instruction.operands)]
  return size * (from_hbm + to_hbm)


def _written(
  instruction: Instruction,
  inner: list[Instruction],
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
    size = sum(s for s, _ in array_sizes(update.result))
    part = sum(s for s, _ in array_sizes(types.get(update.operands[1], '')))
    if part < size <= whole:
      whole -= size - part
  return max(whole, 0)


def _read(
  module: Module, instruction: Instruction, place: int, whole: int
) -> float:
  """Bytes that are read of an operand of so many bytes."""
  if instruction.opcode in _READS_A_PART and place == 0:
    return sum(size for size, _ in array_sizes(instruction.result))
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
        read += sum(size for size, _ in array_sizes(user.result))
      elif user.opcode == 'fusion':
        read += sum(
          _read(module, user, place, whole)
          for place, operand in enumerate(user.operands)
          if operand in source
        )
      elif user.opcode not in _PASSES_ON and not _updates(user, source):
        return whole
  return read if inner else whole


def _updates(instruction: Instruction, names: set[str]) -> bool:
  """Whether it overwrites a part of an array of such a name."""
  is_update = instruction.opcode == 'dynamic-update-slice'
  return is_update and instruction.operands[0] in names


def _in_hbm(shapes: str) -> int:
  return sum(size for size, in_hbm in array_sizes(shapes) if in_hbm)
