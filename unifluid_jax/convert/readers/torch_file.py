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

from unifluid_jax.convert.layouts.layout import Tensor
from unifluid_jax.errors import UserError

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
  """The tensors of one file."""

  def __init__(self, path: pathlib.Path):
    """Reads the file's structure and maps its tensors.

    Raises:
      UserError: PyTorch is not installed, or the file cannot be read safely.
    """
    self.files: tuple[pathlib.Path, ...] = (path,)
    tensors = _load(path)
    for key in _WRAPPERS:
      if isinstance(tensors.get(key), dict):
        tensors = tensors[key]
    self._tensors = {
      name: value
      for name, value in tensors.items()
      if isinstance(name, str) and hasattr(value, 'dtype')
    }
    self.header = {
      name: Tensor(
        tuple(value.shape), str(value.dtype).removeprefix('torch.'), str(path)
      )
      for name, value in self._tensors.items()
    }

  def read(self, name: str) -> np.ndarray:
    """The tensor, without a copy."""
    tensor = self._tensors[name].detach()
    if self.header[name].dtype == 'bfloat16':
      torch = _torch(self.files[0])
      return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _torch(path: pathlib.Path) -> Any:
  try:
    return importlib.import_module('torch')
  except ImportError as error:
    raise UserError(
      f'{path} is a PyTorch file: pip install "unifluid_jax[convert]", or '
      'use safetensors'
    ) from error


def _load(path: pathlib.Path) -> dict[Any, Any]:
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
  """What is wrong, without PyTorch's advice to run what is in the file."""
  text = str(error) or type(error).__name__
  if found := re.search(r'GLOBAL (\S+)', text):
    return f'it asks for {found[1]}, which might run anything'
  if found := re.search(r'WeightsUnpickler error:\s*(.+)', text):
    return found[1]
  return text.splitlines()[0][:200]
