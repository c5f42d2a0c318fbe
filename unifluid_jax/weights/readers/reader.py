"""What a reader is, and which one a path needs."""

import pathlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.layouts.tensor_layout import Header
from unifluid_jax.weights.readers import folder_reader, shards
from unifluid_jax.weights.readers.npz_reader import NpzReader
from unifluid_jax.weights.readers.orbax_reader import OrbaxReader, is_orbax
from unifluid_jax.weights.readers.safetensors_reader import SafetensorsReader
from unifluid_jax.weights.readers.torch_file import TorchReader


@runtime_checkable
class Reader(Protocol):
  """Tensors of one or several files; making one reads no values."""

  @property
  def files(self) -> tuple[pathlib.Path, ...]:
    """The files that make up the source."""

  @property
  def header(self) -> Header:
    """Headers of the tensors, by name."""

  def read(self, name: str) -> np.ndarray:
    """Reads a tensor: a memory map if possible, else a copy."""


_BY_SUFFIX: dict[str, Callable[[pathlib.Path], Reader]] = {
  '.safetensors': SafetensorsReader,
  '.npz': NpzReader,
  '.ckpt': TorchReader,
  '.pt': TorchReader,
  '.pth': TorchReader,
  '.bin': TorchReader,
}


def open_reader(path: str) -> Reader:
  """Opens a file, or a folder that holds a checkpoint.

  Args:
    path: A .safetensors, .npz or PyTorch file, or a folder of one of these,
      of shards and their index, or of Orbax.

  Raises:
    UserError: The format is unknown, or the file is not complete.
  """
  if path.startswith('gs://'):
    return _open_bucket(path)
  try:
    return _open(path)
  except OSError as error:
    raise UserError(
      f'cannot read {error.filename or path}: {error.strerror or error}'
    ) from error


def _open(path: str) -> Reader:
  """Opens a file or folder of this machine."""
  local = pathlib.Path(path)
  if local.is_symlink() and not local.exists():
    raise UserError(f'{path} is a broken link; name the file')
  if not local.exists():
    raise UserError(f'{path} does not exist; name a file or a folder')
  if is_orbax(path):
    return OrbaxReader(path)
  file = folder_reader.find_weights(local) if local.is_dir() else local
  suffix = pathlib.PurePath(file.name.removesuffix(shards.SUFFIX)).suffix
  if suffix not in _BY_SUFFIX:
    raise UserError(
      f'{path} has an unknown format; known are {", ".join(_BY_SUFFIX)} files '
      'and folders of these or of Orbax'
    )
  if shards.is_of_training(file):
    raise UserError(
      f'{path} is what a training saves beside its weights; name the file of '
      'weights, or the folder'
    )
  if not file.is_file():
    raise UserError(
      f'{file} is not a file, or is a broken link; download it again'
    )
  return _BY_SUFFIX[suffix](file)


def _open_bucket(path: str) -> Reader:
  """Opens an Orbax checkpoint in a bucket."""
  try:
    if is_orbax(path):
      return OrbaxReader(path)
  except (ImportError, OSError) as error:
    raise UserError(
      f'cannot read {path}: {error}; pip install "unifluid_jax[tpu]" reads '
      'buckets'
    ) from error
  raise UserError(
    f'{path} is not an Orbax folder, the only format that is read from a '
    'bucket; copy it here with `gcloud storage cp`'
  )
