"""Safetensors: a JSON header, then the values, which are mapped on demand.

Format: https://github.com/huggingface/safetensors. A tensor is mapped anew by
each `read`, so that its pages leave the process when the array does.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from unifluid_jax.convert.layouts.layout import Tensor
from unifluid_jax.convert.readers.dtypes import SAFETENSORS
from unifluid_jax.errors import UserError

INDEX = '.safetensors.index.json'
_LONGEST_HEADER = 100_000_000


class _Place(NamedTuple):
  """Where a tensor lies."""

  file: pathlib.Path
  offset: int
  dtype: np.dtype | None


class SafetensorsReader:
  """One file, or a folder: one file or the shards that its index lists."""

  def __init__(self, path: pathlib.Path):
    """Reads the headers.

    Raises:
      UserError: A file is missing, damaged or not complete.
    """
    self._places: dict[str, _Place] = {}
    self.header: dict[str, Tensor] = {}
    self.metadata: dict[str, str] = {}
    if path.is_file():
      self.files: tuple[pathlib.Path, ...] = (path,)
      self._add(path, None)
      return
    indexes = sorted(path.glob(f'*{INDEX}'))
    if len(indexes) == 1:
      self._open_shards(indexes[0])
    else:
      file = _single_file(path)
      self.files = (file,)
      self._add(file, None)

  def read(self, name: str) -> np.ndarray:
    """Maps a tensor, read-only."""
    place, shape = self._places[name], self.header[name].shape
    if place.dtype is None:
      raise UserError(
        f'{name} in {place.file} is of dtype {self.header[name].dtype}, which '
        'is not supported; use a checkpoint that is not quantised'
      )
    if not math.prod(shape):
      return np.empty(shape, place.dtype)
    return np.memmap(place.file, place.dtype, 'r', place.offset, shape)

  def _open_shards(self, index: pathlib.Path) -> None:
    try:
      shards = json.loads(index.read_text(encoding='utf-8'))['weight_map']
    except (ValueError, KeyError) as error:
      raise UserError(
        f'{index} is no index of safetensors; download it again'
      ) from error
    names = sorted({*shards.values()})
    self.files = tuple(index.parent / name for name in names)
    for file in self.files:
      listed = {name for name, shard in shards.items() if shard == file.name}
      if not file.exists():
        raise UserError(
          f'{file} is missing; {index.name} lists {len(listed)} tensors in '
          f'it, such as {min(listed)}; download it too'
        )
      self._add(file, listed)

  def _add(self, file: pathlib.Path, listed: set[str] | None) -> None:
    header, start = _read_header(file)
    self.metadata |= header.pop('__metadata__', {})
    absent = sorted((listed or set()) - {*header})
    if absent:
      raise UserError(
        f'{file} lacks {absent[0]}, which the index lists in it; the files are '
        'not of one checkpoint'
      )
    size = file.stat().st_size
    for name, entry in header.items():
      if listed is not None and name not in listed:
        continue
      try:
        shape = tuple(int(n) for n in entry['shape'])
        first, stop = entry['data_offsets']
        kind = str(entry['dtype'])
      except (TypeError, KeyError, ValueError) as error:
        raise _damaged(file, f'the entry of {name} is {entry!r}') from error
      dtype = SAFETENSORS.get(kind)
      if start + stop > size:
        raise UserError(
          f'{file} is not complete: {name} ends at byte {start + stop} and '
          f'the file at {size}; download it again'
        )
      if (
        dtype is not None and stop - first != math.prod(shape) * dtype.itemsize
      ):
        raise _damaged(file, f'{name} is {stop - first} bytes for {shape}')
      self._places[name] = _Place(file, start + first, dtype)
      self.header[name] = Tensor(shape, str(dtype or kind), str(file))


def _single_file(folder: pathlib.Path) -> pathlib.Path:
  files = sorted(folder.glob('*.safetensors'))
  if len(files) == 1:
    return files[0]
  for name in ('model', 'diffusion_pytorch_model'):
    if folder / f'{name}.safetensors' in files:
      return folder / f'{name}.safetensors'
  raise UserError(
    f'{folder} holds {len(files)} safetensors files and no index '
    f'(*{INDEX}); name one file, or download the index too'
  )


def _read_header(file: pathlib.Path) -> tuple[dict[str, Any], int]:
  """The header, and where the values start."""
  size = file.stat().st_size
  with file.open('rb') as stream:
    length = int.from_bytes(stream.read(8), 'little')
    if size < 8 or length > min(_LONGEST_HEADER, size - 8):
      raise _damaged(file, f'its header of {length} bytes is not in it')
    try:
      header = json.loads(stream.read(length))
    except ValueError as error:
      raise _damaged(file, 'its header is no JSON') from error
  if not isinstance(header, dict):
    raise _damaged(file, 'its header is no JSON object')
  return header, 8 + length


def _damaged(file: pathlib.Path, what: str) -> UserError:
  return UserError(
    f'{file} is no complete safetensors file ({what}); download it again'
  )
