"""Writes safetensors tensor by tensor, in shards, with checksums.

Format: https://github.com/huggingface/safetensors; the names of shards and
of the index are those that transformers and diffusers read.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import LazyArray, full_slices, read
from unifluid_jax.weights.readers.dtypes import SAFETENSORS
from unifluid_jax.weights.readers.safetensors_reader import INDEX

_NAMES = {dtype: name for name, dtype in SAFETENSORS.items()}
_SHARD_BYTES = 5 * 10**9
_CHUNK_BYTES = 1 << 27

# In a folder: what is not whole yet, and the mark that it is being moved.
_PARTIAL, _MOVING = '.partial', '.moving'
# Of the files that are moved, and the one that is moved last.
_SUFFIXES = ('.safetensors', '.json', '.md', '.model')
_LAST = 'config.json'


class Entry(NamedTuple):
  """A tensor to write.

  Attributes:
    shape: Its shape.
    dtype: Its dtype.
    chunks: Makes its values, in order, as arrays.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  chunks: Callable[[], Iterator[np.ndarray]]

  @property
  def nbytes(self) -> int:
    """Size in the file."""
    return math.prod(self.shape) * self.dtype.itemsize


def entry(name: str, array: LazyArray, dtype: np.dtype) -> Entry:
  """An array as it is, read in chunks of rows.

  Args:
    name: What messages call it.
    array: The array.
    dtype: Dtype to write it in.
  """

  def chunks() -> Iterator[np.ndarray]:
    if not array.shape:
      yield read(array, (), dtype, name)
      return
    row = max(math.prod(array.shape[1:]) * dtype.itemsize, 1)
    step = max(_CHUNK_BYTES // row, 1)
    rest = full_slices(array.shape[1:])
    for start in range(0, array.shape[0], step):
      rows = slice(start, min(start + step, array.shape[0]))
      yield read(array, (rows, *rest), dtype, name)

  return Entry(array.shape, dtype, chunks)


def check_new(path: pathlib.Path) -> None:
  """Checks that a folder can be made, or is there and empty.

  Raises:
    UserError: There is something already, or it may not be written.
  """
  try:
    if (path.exists() or path.is_symlink()) and not _is_free(path):
      raise UserError(f'{path} exists and is not empty; choose another place')
    there = path
    while not there.exists():
      there = there.parent
    # Asks the disk itself: modes say nothing of a mount, or to root.
    with tempfile.TemporaryFile(dir=there):
      pass
  except OSError as error:
    raise _unwritable(path, error) from error


def _is_free(path: pathlib.Path) -> bool:
  """Whether a folder is empty but for leftovers of a killed process."""
  if not path.is_dir():
    return False
  names = {file.name for file in path.iterdir()}
  others = names - {_PARTIAL, _MOVING}
  return not others or (_MOVING in names and all(map(_is_written, others)))


def _is_written(name: str) -> bool:
  return pathlib.PurePath(name).suffix in _SUFFIXES


def _move_into(path: pathlib.Path, partial: pathlib.Path) -> None:
  """Moves files into a folder; a mark is there until they all are."""
  (path / _MOVING).touch()
  # Without config.json, an incomplete folder is not a model.
  for file in sorted(partial.iterdir(), key=lambda f: (f.name == _LAST, f)):
    file.rename(path / file.name)
  (path / _MOVING).unlink()


def _clear(path: pathlib.Path) -> None:
  """Removes what a move that was cut short has brought."""
  if (path / _MOVING).exists():
    for file in path.iterdir():
      if _is_written(file.name):
        file.unlink()
    (path / _MOVING).unlink()


def _unwritable(path: pathlib.Path, error: OSError) -> UserError:
  return UserError(
    f'{path} cannot be written: {error.strerror or error}; make room there, '
    'or choose another place'
  )


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder that appears only when everything is in it.

  A folder that is there and empty, such as a mounted one, stays the same.
  Where the move into it was cut short, the next run begins anew.

  Args:
    path: Where it is to be.

  Yields:
    Where to write.

  Raises:
    UserError: There is something already, or the disk is full.
  """
  check_new(path)
  is_there = path.is_dir()
  partial = (
    path / _PARTIAL if is_there else path.with_name(f'.{path.name}{_PARTIAL}')
  )
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _clear(path)
    yield partial
    if is_there:
      _move_into(path, partial)
    else:
      partial.rename(path)
  except OSError as error:
    raise _unwritable(path, error) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
    _clear(path)


def write(
  folder: pathlib.Path,
  stem: str,
  entries: Mapping[str, Entry],
  shard_bytes: int = _SHARD_BYTES,
) -> dict[str, str]:
  """Writes tensors into a folder.

  Args:
    folder: The folder.
    stem: Name of the file without its suffix.
    entries: The tensors.
    shard_bytes: Largest size of a file; a larger tensor gets a file of its own.

  Returns:
    SHA-256 of each tensor's bytes.
  """
  shards = _shards(entries, shard_bytes)
  count = len(shards)
  checksums: dict[str, str] = {}
  weight_map: dict[str, str] = {}
  for number, names in enumerate(shards, 1):
    part = f'-{number:05}-of-{count:05}' if count > 1 else ''
    file = f'{stem}{part}.safetensors'
    weight_map |= dict.fromkeys(names, file)
    checksums |= _write_shard(
      folder / file, {name: entries[name] for name in names}
    )
  if count > 1:
    total = sum(e.nbytes for e in entries.values())
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    write_json(folder / f'{stem}{INDEX}', index)
  return checksums


def write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes JSON that people can read."""
  text = json.dumps(content, indent=2, ensure_ascii=False)
  file.write_text(f'{text}\n', encoding='utf-8')


def _shards(entries: Mapping[str, Entry], shard_bytes: int) -> list[list[str]]:
  shards: list[list[str]] = [[]]
  size = 0
  for name, tensor in entries.items():
    if shards[-1] and size + tensor.nbytes > shard_bytes:
      shards.append([])
      size = 0
    shards[-1].append(name)
    size += tensor.nbytes
  return shards


def _write_shard(
  file: pathlib.Path, entries: Mapping[str, Entry]
) -> dict[str, str]:
  # Wide dtypes first, so that every tensor is aligned to its own.
  ordered = sorted(
    entries.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])
  )
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  offset = 0
  for name, tensor in ordered:
    header[name] = {
      'dtype': _NAMES[tensor.dtype],
      'shape': list(tensor.shape),
      'data_offsets': [offset, offset + tensor.nbytes],
    }
    offset += tensor.nbytes
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  checksums = {}
  with (
    file.open('wb') as stream,
    concurrent.futures.ThreadPoolExecutor(1) as pool,
  ):
    stream.write(len(text).to_bytes(8, 'little') + text)
    for name, tensor in ordered:
      digest = hashlib.sha256()
      for chunk in tensor.chunks():
        values = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
        hashed = pool.submit(digest.update, values.data)
        stream.write(values.data)
        hashed.result()
      checksums[name] = digest.hexdigest()
  return checksums
