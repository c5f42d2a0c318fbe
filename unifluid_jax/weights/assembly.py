"""Lazy arrays, assembled from pieces of foreign tensors when they are read."""

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from unifluid_jax.weights import finite_values
from unifluid_jax.weights.copying import copy
from unifluid_jax.weights.rules import Piece

Slices = tuple[slice, ...]
"""A part of an array: one slice of step 1 for each axis."""

# A part this large is what a thread fills at a time.
_PART_BYTES = 1 << 25
# PJRT takes a host buffer of this alignment without a copy.
_ALIGNMENT = 64


@runtime_checkable
class LazyArray(Protocol):
  """An array that can be read in parts."""

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""

  @property
  def dtype(self) -> np.dtype:
    """The dtype of the file."""

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""


@runtime_checkable
class Traced(Protocol):
  """An array that knows the tensors of files that it is made of."""

  def origins(self) -> Iterator[tuple[str, np.ndarray]]:
    """What messages call each of the tensors, and the tensor."""


@dataclasses.dataclass(frozen=True)
class Assembled:
  """An array of pieces of foreign tensors.

  Attributes:
    shape: Its shape.
    dtype: Dtype of the pieces.
    pieces: The pieces; together they are all of it.
    read: Gives a foreign tensor by its name.
    title: What messages call a foreign tensor: its whole name, its file and
      our name.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  pieces: tuple[Piece, ...]
  read: Callable[[str], np.ndarray]
  title: Callable[[str], str]

  def origins(self) -> Iterator[tuple[str, np.ndarray]]:
    """What messages call each of the tensors, and the tensor."""
    for theirs in dict.fromkeys(piece.theirs for piece in self.pieces):
      yield self.title(theirs), self.read(theirs)

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""
    for piece in self.pieces:
      inside, outside = [], []
      for fixed, wanted in zip(piece.where, where, strict=True):
        if isinstance(fixed, slice):
          inside.append(wanted)
          outside.append(slice(None))
        elif wanted.start <= fixed < wanted.stop:
          outside.append(fixed - wanted.start)
        else:
          break
      else:
        view = piece.view(self.read(piece.theirs), self.shape)
        copy(out[index(outside)], view[index(inside)])


@dataclasses.dataclass(frozen=True)
class Constant:
  """An array that is known, not read; surgery and config make them."""

  value: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""
    return self.value.shape

  @property
  def dtype(self) -> np.dtype:
    """Its dtype."""
    return self.value.dtype

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""
    copy(out, self.value[index(where)])


def index(parts: Iterable[int | slice]) -> tuple[Any, ...]:
  """Returns an index that keeps zero-dimensional results arrays."""
  return (*parts, ...)


def full_slices(shape: tuple[int, ...]) -> Slices:
  """The slices of a whole array."""
  return tuple(slice(0, size) for size in shape)


def fill(
  array: LazyArray, out: np.ndarray, where: Slices, name: str = 'a parameter'
) -> None:
  """Writes a part of an array into `out`, in the dtype of `out`.

  Args:
    array: The array.
    out: Where to write.
    where: The part.
    name: What messages call the array.

  Raises:
    UserError: A value is not finite, or not in the dtype of `out`.
  """
  array.read_into(out, where)
  if not finite_values.is_finite(out):
    raise finite_values.error(name, _origins(array, name), out.dtype)


def read(
  array: LazyArray,
  where: Slices | None = None,
  dtype: DTypeLike | None = None,
  name: str = 'a parameter',
) -> np.ndarray:
  """Reads an array, or a part of it, in threads.

  Args:
    array: The array.
    where: The part; None for all of it.
    dtype: Dtype of the result; None for the array's own.
    name: What messages call the array.

  Returns:
    A new array that a CPU device can take over without a copy.

  Raises:
    UserError: A value is not finite, or not in that dtype.
  """
  where = full_slices(array.shape) if where is None else where
  shape = tuple(part.stop - part.start for part in where)
  out = _empty(shape, np.dtype(dtype or array.dtype))
  workers = min(os.cpu_count() or 1, 8)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    jobs = [
      pool.submit(fill, array, out[index(part)], _within(where, part), name)
      for part in _parts(shape, out.itemsize)
    ]
    for job in jobs:
      job.result()
  return out


def _origins(array: LazyArray, name: str) -> Iterator[tuple[str, np.ndarray]]:
  """The tensors that an array is made of; of no file, itself in parts."""
  if isinstance(array, Traced):
    yield from array.origins()
    return
  for part in _parts(array.shape, array.dtype.itemsize):
    out = _empty(tuple(s.stop - s.start for s in part), array.dtype)
    array.read_into(out, part)
    yield name, out


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + _ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % _ALIGNMENT
  return raw[start : start + size].view(dtype).reshape(shape)


def _parts(shape: tuple[int, ...], itemsize: int) -> list[Slices]:
  """Parts along the first axis, of a bounded size."""
  if not shape:
    return [()]
  row = max(math.prod(shape[1:]) * itemsize, 1)
  rows = max(_PART_BYTES // row, 1)
  return [
    (slice(i, min(i + rows, shape[0])), *full_slices(shape[1:]))
    for i in range(0, shape[0], rows)
  ]


def _within(where: Slices, part: Slices) -> Slices:
  return tuple(
    slice(a.start + b.start, a.start + b.stop)
    for a, b in zip(where, part, strict=True)
  )
