"""The table of a conversion, from headers alone."""

import math
import re
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from unifluid_jax.weights.assembly import LazyArray
from unifluid_jax.weights.layouts.tensor_layout import Tensor
from unifluid_jax.weights.pretrained import Part, Pretrained

_LAYER = re.compile(r'(?<=[._/])\d+(?=[./])')


def lines(source: Pretrained) -> Iterator[str]:
  """Yields one line per parameter with its foreign tensors, and totals."""
  total = 0
  for name, part in source.parts.items():
    title = f' ({part.layout.title}, names under {part.prefix!r})'
    yield f'{name}{title if part.pieces else ""}'
    for ours, array in part.arrays.items():
      size = math.prod(array.shape) * array.dtype.itemsize
      total += size
      theirs = ' + '.join(_theirs(part, ours, source.reader.header))
      yield (
        f'  {ours} {list(array.shape)} {array.dtype} {_bytes(size)} <- '
        f'{theirs or ("the config" if part.pieces else "as it is")}'
      )
    for theirs in part.carried:
      yield f'  carried along: {theirs}'
  count = sum(len(part.arrays) for part in source.parts.values())
  yield f'{count} parameters, {_bytes(total)}'
  if source.unused:
    shown = ', '.join(source.unused[:5])
    more = len(source.unused) - 5
    yield (
      f'{len(source.unused)} tensors are not needed: {shown}'
      + (f' and {more} more' if more > 0 else '')
    )


def lines_of_ours(
  arrays: Mapping[str, LazyArray | jax.ShapeDtypeStruct],
) -> Iterator[str]:
  """Yields one line per parameter of a run, and totals."""
  total = 0
  for name, array in sorted(arrays.items()):
    size = math.prod(array.shape) * array.dtype.itemsize
    total += size
    yield f'  {name} {list(array.shape)} {array.dtype} {_bytes(size)}'
  yield f'{len(arrays)} parameters, {_bytes(total)}'


def _theirs(
  part: Part, ours: str, header: Mapping[str, Tensor]
) -> Iterator[str]:
  """Yields the foreign tensors of a parameter; layers are grouped."""
  own = ours.split('/', 1)[1] if part.config is not None else ours
  groups: dict[str, list[str]] = {}
  for piece in part.pieces:
    if piece.ours == own:
      name = piece.theirs
      key = name if piece.layer is None else _LAYER.sub('*', name, count=1)
      groups.setdefault(key, []).append(name)
  for key, names in groups.items():
    shape = list(header[part.prefix + names[0]].shape)
    times = f' x {len(names)}' if len(names) > 1 else ''
    yield f'{key} {shape}{times}'


def _bytes(count: int) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000 or unit == 'GB':
      digits = np.format_float_positional(count, 4, fractional=False, trim='-')
      return f'{digits} {unit}'
    count = count / 1000  # type: ignore[assignment]
  raise AssertionError
