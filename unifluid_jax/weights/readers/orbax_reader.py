"""Orbax checkpoints, such as Gemma's official ones, here or on gs://.

A tree is read as names joined by slashes, so that a flat dictionary whose
keys hold slashes and a nested one are the same.
"""

import functools
import pathlib
import threading
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.layouts.tensor_layout import Tensor

_MARKS = ('_METADATA', '_CHECKPOINT_METADATA', 'checkpoint')
# What Orbax and TensorStore raise of damaged files; RuntimeError also of JSON
# that is nested too deeply.
_DAMAGE = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  LookupError,
  MemoryError,
  OSError,
  RuntimeError,
  TypeError,
  ValueError,
)


def is_orbax(path: str) -> bool:
  """Whether a path is the folder of an Orbax checkpoint."""
  folder = epath.Path(path)
  return any((folder / mark).exists() for mark in _MARKS)


class OrbaxReader:
  """The arrays of one checkpoint; each is read whole, and one is kept."""

  def __init__(self, path: str):
    """Reads the tree's metadata.

    Raises:
      UserError: It cannot be read.
    """
    self._path = epath.Path(path)
    if not self._path.is_absolute():
      self._path = epath.Path(pathlib.Path(path).absolute())
    self._checkpointer = ocp.PyTreeCheckpointer()
    try:
      metadata = self._checkpointer.metadata(self._path).item_metadata
      tree = metadata and metadata.tree
    except _DAMAGE as error:
      _check_pointers(self._path)
      raise UserError(
        f'{path} is not a complete Orbax checkpoint ({_first_line(error)}); '
        'copy it again'
      ) from error
    if not tree:
      _check_pointers(self._path)
      raise UserError(
        f'{path} holds no tree of arrays itself; name the folder in it that '
        'does, such as default, or copy it again'
      )
    self.files: tuple[pathlib.Path, ...] = (pathlib.Path(path),)
    self._keys: dict[str, tuple[str, ...]] = {}
    self.header: dict[str, Tensor] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
      names = tuple(str(getattr(k, 'key', k)) for k in keys)
      name = '/'.join(names)
      if hasattr(leaf, 'shape') and leaf.shape is not None:
        self._keys[name] = names
        self.header[name] = Tensor(tuple(leaf.shape), str(leaf.dtype), path)
    self._read_once = functools.lru_cache(maxsize=1)(self._read)
    self._lock = threading.Lock()

  def read(self, name: str) -> np.ndarray:
    """Reads an array."""
    with self._lock:
      return self._read_once(name)

  def _read(self, name: str) -> np.ndarray:
    item: Any = 0
    arguments: Any = ocp.RestoreArgs(restore_type=np.ndarray)
    for key in reversed(self._keys[name]):
      item, arguments = {key: item}, {key: arguments}
    try:
      tree = self._checkpointer.restore(
        self._path,
        args=ocp.args.PyTreeRestore(
          item=item, restore_args=arguments, partial_restore=True
        ),
      )
    except _DAMAGE as error:
      _check_pointers(self._path)
      raise UserError(
        f'{name} in {self._path} cannot be read ({_first_line(error)}); copy '
        'the checkpoint again'
      ) from error
    for key in self._keys[name]:
      tree = tree[key]
    return np.asarray(tree)


def _check_pointers(folder: epath.Path) -> None:
  """Looks for the reason why a checkpoint cannot be read.

  Raises:
    UserError: A file in the folder is a Git LFS pointer.
  """
  local = pathlib.Path(folder)
  for file in local.rglob('*') if local.is_dir() else ():
    if file.is_file():
      lfs.check_file(file)


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__
