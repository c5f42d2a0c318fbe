"""What a reader is, and which one a path needs."""

import pathlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from unifluid_jax.convert.layouts.layout import Header
from unifluid_jax.convert.readers.npz import NpzReader
from unifluid_jax.convert.readers.orbax import OrbaxReader, is_orbax
from unifluid_jax.convert.readers.safetensors import SafetensorsReader
from unifluid_jax.convert.readers.torch_file import TorchReader
from unifluid_jax.errors import UserError


@runtime_checkable
class Reader(Protocol):
  """Tensors of one or several files; making one reads no values."""

  @property
  def files(self) -> tuple[pathlib.Path, ...]:
    """The files that make up the source."""

  @property
  def header(self) -> Header:
    """What is known of each tensor."""

  def read(self, name: str) -> np.ndarray:
    """The tensor: a memory map where the file allows it, else a copy."""


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
    path: A .safetensors, .npz or PyTorch file, or a folder of safetensors
      (with an index or without) or of Orbax.

  Raises:
    UserError: It is none of these, or is not complete.
  """
  if path.startswith('gs://'):
    return _open_bucket(path)
  local = pathlib.Path(path)
  if is_orbax(path):
    return OrbaxReader(path)
  if local.is_dir():
    if any(local.glob('*.safetensors*')):
      return SafetensorsReader(local)
    for suffix in ('.npz', '.ckpt', '.bin', '.pth', '.pt'):
      files = sorted(local.glob(f'*{suffix}'))
      if len(files) == 1:
        return _BY_SUFFIX[suffix](files[0])
    raise UserError(
      f'{path} holds no checkpoint: no *.safetensors, no single .npz or '
      'PyTorch file, and no Orbax folder; name the file or the folder itself'
    )
  if not local.exists():
    raise UserError(f'{path} does not exist; name a file or a folder')
  if local.suffix not in _BY_SUFFIX:
    raise UserError(
      f'{path} is of no known format; known are {", ".join(_BY_SUFFIX)} files '
      'and folders of safetensors or Orbax'
    )
  return _BY_SUFFIX[local.suffix](local)


def _open_bucket(path: str) -> Reader:
  """Opens a checkpoint in a bucket, where only Orbax is read."""
  try:
    if is_orbax(path):
      return OrbaxReader(path)
  except (ImportError, OSError) as error:
    raise UserError(
      f'cannot read {path}: {error}; pip install "unifluid_jax[tpu]" reads '
      'buckets'
    ) from error
  raise UserError(
    f'{path} is no folder of Orbax, which alone is read from a bucket; copy it '
    'here with `gcloud storage cp`'
  )
