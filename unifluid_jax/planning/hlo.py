"""The text of a compiled program (HLO): instructions, and how often they run.

An instruction runs as often as the loops around it turn.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16}
_SHAPE = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(
  r'\s+(ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)'
)
_HEADER = re.compile(r'(ENTRY )?%([\w.\-]+) \(.*\{$')


class Instruction(NamedTuple):
  """One line of a program.

  Attributes:
    name: Its own, of which others are the operands.
    result: Type of its result, or types.
    opcode: What it does.
    operands: Names of the instructions whose results it takes.
    text: All from its operands on.
    is_root: Whether its result is that of its computation.
  """

  name: str
  result: str
  opcode: str
  operands: list[str]
  text: str
  is_root: bool


Module = dict[str, list[Instruction]]
"""The instructions of each computation, by its name."""


def parse(text: str) -> tuple[Module, str]:
  """The instructions of a program's text, and its entry computation."""
  module: Module = {}
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
        Instruction(name, result, opcode, operands, rest, bool(root))
      )
  return module, entry


def executions(module: Module, entry: str) -> dict[str, int]:
  """How often the entry and the bodies of its loops run."""
  counts: dict[str, int] = {}

  def visit(name: str, times: int) -> None:
    counts[name] = counts.get(name, 0) + times
    for instruction in module[name]:
      if instruction.opcode == 'while':
        body = computation_of(instruction, 'body')
        trips = _trips(module, computation_of(instruction, 'condition'))
        visit(body, times * trips)
      elif instruction.opcode in ('call', 'conditional'):
        called = re.findall(
          r'(?:to_apply|(?:true|false)_computation|branch_computations)='
          r'(%[\w.\-]+|\{[^}]*\})',
          instruction.text,
        )
        for branch in re.findall(r'%([\w.\-]+)', ' '.join(called)):
          visit(branch, times)

  visit(entry, 1)
  return counts


def executions_of_all(module: Module, entry: str) -> dict[str, int]:
  """How often each computation runs, those inside of fusions too."""
  counts = executions(module, entry)
  waiting = list(counts)
  while waiting:
    name = waiting.pop()
    for instruction in module[name]:
      for called in re.findall(r'calls=%([\w.\-]+)', instruction.text):
        if called in module and called not in counts:
          counts[called] = counts[name]
          waiting.append(called)
  return counts


def computation_of(instruction: Instruction, role: str) -> str:
  """Name of the computation that has a role (e.g. `body`) in it, or ''."""
  match = re.search(rf'{role}=%([\w.\-]+)', instruction.text)
  return match[1] if match else ''


def _trips(module: Module, condition: str) -> int:
  """A loop counts from 0 up to the one large constant of its condition."""
  found = [
    int(match[1])
    for instruction in module[condition]
    if instruction.opcode == 'constant'
    and (match := re.match(r'(\d+)\)', instruction.text))
  ]
  return max(found, default=1)


def array_sizes(shapes: str) -> Iterator[tuple[int, bool]]:
  """Bytes of each array of a type, and whether it is in HBM."""
  for kind, dimensions, layout in _SHAPE.findall(shapes):
    digits = re.search(r'\d+', kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 0)
    count = math.prod(int(d) for d in dimensions.split(',') if d)
    yield count * bits // 8, 'S(' not in layout
