"""PyTorch's own files, for weights that come in no other form.

They are pickles: read with `weights_only=True`, which runs no code, and with
PyTorch installed (the `convert` extra). Tensors are mapped.
"""

import importlib
import pathlib
import pickle
import re
import struct
from typing import Any

import ml_dtypes
import numpy as np

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.layouts.tensor_layout import Tensor
from unifluid_jax.weights.readers import shards

# What PyTorch raises of damaged bytes, which its unpickler follows blindly.
_DAMAGE = (
  pickle.UnpicklingError,
  struct.error,
  AssertionError,
  AttributeError,
  EOFError,
  LookupError,
  OSError,
  OverflowError,
  RuntimeError,
  TypeError,
  ValueError,
)
# What training scripts put around a model's tensors.
_WRAPPERS = ('state_dict', 'model')


class TorchReader:
  """The tensors of one file, or of the shards that an index lists."""

  def __init__(self, path: pathlib.Path):
    """Reads the files' structure and maps their tensors.

    Args:
      path: The file, or the index.

    Raises:
      UserError: PyTorch is not installed, or a file is missing or cannot be
        read safely.
    """
    self._tensors: dict[str, Any] = {}
    self.header: dict[str, Tensor] = {}
    self.files: tuple[pathlib.Path, ...] = (path,)
    if not path.name.endswith(shards.SUFFIX):
      self._add(path)
      return
    listed = shards.read_index(path)
    self.files = shards.files_of(path, listed)
    for file in self.files:
      shards.check_listed(listed, file, self._add(file))

  def read(self, name: str) -> np.ndarray:
    """The tensor, without a copy."""
    tensor = self._tensors[name].detach()
    try:
      if self.header[name].dtype == 'bfloat16':
        torch = _torch(self.files[0])
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
      return tensor.numpy()
    except _DAMAGE as error:
      raise UserError(
        f'{name} in {self.header[name].file} is not a plain tensor '
        f'({_reason(error)}); save it as a dense one'
      ) from error

  def _add(self, file: pathlib.Path) -> set[str]:
    """Takes the tensors of a file; gives their names."""
    tensors = _load(file)
    for key in _WRAPPERS:
      if isinstance(tensors.get(key), dict):
        tensors = tensors[key]
    found = {
      name: value
      for name, value in tensors.items()
      if isinstance(name, str) and hasattr(value, 'dtype')
    }
    self._tensors |= found
    self.header |= {
      name: Tensor(
        tuple(value.shape), str(value.dtype).removeprefix('torch.'), str(file)
      )
      for name, value in found.items()
    }
    return {*found}


def _torch(path: pathlib.Path) -> Any:
  try:
    return importlib.import_module('torch')
  except ImportError as error:
    raise UserError(
      f'{path} is a PyTorch file: pip install "unifluid_jax[convert]", or '
      'use safetensors'
    ) from error


def _load(path: pathlib.Path) -> dict[Any, Any]:
  if not path.is_file():
    raise UserError(
      f'{path} is not a file, or is a broken link; download it again'
    )
  lfs.check_file(path)
  torch = _torch(path)
  options = {'map_location': 'cpu', 'weights_only': True}
  try:
    try:
      tensors = torch.load(path, mmap=True, **options)
    except RuntimeError:
      # The format before PyTorch 1.6 cannot be mapped.
      tensors = torch.load(path, **options)
  except _DAMAGE as error:
    raise UserError(
      f'{path} cannot be read as plain tensors ({_reason(error)}); it is '
      'damaged, or use a safetensors file'
    ) from error
  if not isinstance(tensors, dict):
    raise UserError(f'{path} holds no dictionary of tensors')
  return tensors


def _reason(error: Exception) -> str:
  """Returns an error's reason without PyTorch's advice to execute the file."""
  text = str(error) or type(error).__name__
  if found := re.search(r'GLOBAL (\S+)', text):
    return f'it asks for {found[1]}, which might run anything'
  if found := re.search(r'WeightsUnpickler error:\s*(.+)', text):
    return found[1]
  return text.splitlines()[0][:200]
