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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from unifluid_jax.convert.assembly import LazyArray, everything, read
from unifluid_jax.convert.readers.dtypes import SAFETENSORS
from unifluid_jax.convert.readers.safetensors import INDEX
from unifluid_jax.errors import UserError

_NAMES = {dtype: name for name, dtype in SAFETENSORS.items()}
_SHARD_BYTES = 5 * 10**9
_CHUNK_BYTES = 1 << 27


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


def entry(array: LazyArray, dtype: np.dtype) -> Entry:
  """An array as it is, read in chunks of rows."""

  def chunks() -> Iterator[np.ndarray]:
    if not array.shape:
      yield read(array, (), dtype)
      return
    row = max(math.prod(array.shape[1:]) * dtype.itemsize, 1)
    step = max(_CHUNK_BYTES // row, 1)
    rest = everything(array.shape[1:])
    for start in range(0, array.shape[0], step):
      rows = slice(start, min(start + step, array.shape[0]))
      yield read(array, (rows, *rest), dtype)

  return Entry(array.shape, dtype, chunks)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder that appears only when everything is in it.

  A folder that is there and empty, such as a mounted one, stays the same.

  Args:
    path: Where it is to be.

  Yields:
    Where to write.

  Raises:
    UserError: There is something already, or the disk is full.
  """
  is_there = path.is_dir()
  partial = (
    path / '.partial' if is_there else path.with_name(f'.{path.name}.partial')
  )
  if path.exists() and not (is_there and {*path.iterdir()} <= {partial}):
    raise UserError(f'{path} exists and is not empty; choose another place')
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if is_there:
      for file in sorted(partial.iterdir()):
        file.rename(path / file.name)
    else:
      partial.rename(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror or error}; make room there, '
      'or choose another place'
    ) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


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
    shard_bytes: Largest file, but for a single larger tensor.

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
