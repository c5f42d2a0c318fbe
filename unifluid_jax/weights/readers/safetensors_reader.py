"""Safetensors: a JSON header, then the values, which are mapped on demand.

Format: https://github.com/huggingface/safetensors. A tensor is mapped anew by
each `read`, so that its pages leave the process when the array does.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.weights.layouts.tensor_layout import Tensor
from unifluid_jax.weights.readers import shards
from unifluid_jax.weights.readers.dtypes import SAFETENSORS

INDEX = f'.safetensors{shards.SUFFIX}'
_LONGEST_HEADER = 100_000_000


class _Entry(NamedTuple):
  """What the header says of a tensor; bytes count from the header's end."""

  shape: tuple[int, ...]
  dtype: str
  first: int
  stop: int


class _TensorLocation(NamedTuple):
  """File and offset of a tensor."""

  file: pathlib.Path
  offset: int
  dtype: np.dtype | None


class SafetensorsReader:
  """One file, or the shards that an index lists."""

  def __init__(self, path: pathlib.Path):
    """Reads the headers.

    Args:
      path: The file, or the index.

    Raises:
      UserError: A file is missing, damaged or not complete.
    """
    self._places: dict[str, _TensorLocation] = {}
    self.header: dict[str, Tensor] = {}
    self.files: tuple[pathlib.Path, ...] = (path,)
    if not path.name.endswith(INDEX):
      self._add(path)
      return
    listed = shards.read_index(path)
    self.files = shards.files_of(path, listed)
    for file in self.files:
      shards.check_listed(listed, file, self._add(file))

  def read(self, name: str) -> np.ndarray:
    """Maps a tensor, read-only."""
    place, shape = self._places[name], self.header[name].shape
    if place.dtype is None:
      raise UserError(
        f'{name} in {place.file} is of dtype {self.header[name].dtype}, which '
        'is not supported; use a checkpoint that is not quantized'
      )
    if not math.prod(shape):
      return np.empty(shape, place.dtype)
    return np.memmap(place.file, place.dtype, 'r', place.offset, shape)

  def _add(self, file: pathlib.Path) -> set[str]:
    """Takes the tensors of a file; gives their names."""
    header, start = _read_header(file)
    for name, entry in header.items():
      dtype = SAFETENSORS.get(entry.dtype)
      size = entry.stop - entry.first
      if dtype is not None and size != math.prod(entry.shape) * dtype.itemsize:
        raise _damaged(file, f'{name} is {size} bytes for {entry.shape}')
      self._places[name] = _TensorLocation(file, start + entry.first, dtype)
      self.header[name] = Tensor(
        entry.shape, str(dtype or entry.dtype), str(file)
      )
    return {*header}


def _read_entry(file: pathlib.Path, name: str, entry: Any) -> _Entry:
  try:
    shape, dtype = tuple(entry['shape']), str(entry['dtype'])
    first, stop = entry['data_offsets']
    numbers = (*shape, first, stop)
    is_whole = all(type(n) is int and n >= 0 for n in numbers)
  except (TypeError, KeyError, ValueError):
    is_whole = False
  if not is_whole:
    raise _damaged(file, f'the entry of {name} is {entry!r}')
  return _Entry(shape, dtype, first, stop)


def _check_places(
  file: pathlib.Path, entries: Mapping[str, _Entry], start: int
) -> None:
  """Tensors must follow each other to the end of the file."""
  end, before = 0, 'the header'
  places = sorted((e.first, e.stop, name) for name, e in entries.items())
  for first, stop, name in places:
    if first != end:
      raise _damaged(
        file, f'{name} starts at byte {first}, {before} ends at {end}'
      )
    end, before = stop, name
  size = file.stat().st_size - start
  if end > size:
    raise UserError(
      f'{file} is not complete: {before} ends at byte {start + end} and '
      f'the file at {start + size}; download it again'
    )
  if end < size:
    raise _damaged(file, f'{size - end} bytes at its end belong to no tensor')


def _read_header(file: pathlib.Path) -> tuple[dict[str, _Entry], int]:
  """Reads the header and the offset of the values."""
  if not file.is_file():
    raise UserError(
      f'{file} is not a file, or is a broken link; download it again'
    )
  size = file.stat().st_size
  lfs.check_file(file)
  with file.open('rb') as stream:
    length = int.from_bytes(stream.read(8), 'little')
    if size < 8 or length > min(_LONGEST_HEADER, size - 8):
      raise _damaged(file, f'its header of {length} bytes is not in it')
    try:
      header = parse_json(stream.read(length))
    except ValueError as error:
      raise _damaged(file, f'its header is not JSON, {error}') from error
  if not isinstance(header, dict):
    raise _damaged(file, 'its header is not a JSON object')
  header.pop('__metadata__', None)
  entries = {n: _read_entry(file, n, entry) for n, entry in header.items()}
  _check_places(file, entries, 8 + length)
  return entries, 8 + length


def _damaged(file: pathlib.Path, what: str) -> UserError:
  return UserError(
    f'{file} is not a complete safetensors file ({what}); download it again'
  )
