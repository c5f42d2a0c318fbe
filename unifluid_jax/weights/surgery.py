"""Changes of shape between a file's tables and a model's."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from unifluid_jax.config.sections.init import NEW_ROWS
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import (
  LazyArray,
  Slices,
  Traced,
  full_slices,
  read,
)
from unifluid_jax.weights.copying import copy
from unifluid_jax.weights.layouts.tensor_layout import ENCODER, GEMMA
from unifluid_jax.weights.shapes import Config

# PaliGemma's new rows (google-research/big_vision, models/ppp/gemma.py).
_STD = 0.02
# Tables are padded to a multiple of this, with rows that no token uses.
_PADDING = 128
# Rows of a table that are summed at a time.
_BLOCK = 1 << 14


def fit(
  arrays: Mapping[str, LazyArray],
  found: Mapping[str, Config],
  wanted: Mapping[str, Config],
  *,
  new_rows: str,
  resize_positions: bool,
  path: str,
  padding: int = 0,
  key: str = 'model.gemma.vocab_size',
) -> dict[str, LazyArray]:
  """Gives tables the rows that the wanted configs have.

  Args:
    arrays: Parameters of a file, by UniFluid's names.
    found: The file's configs.
    wanted: The model's configs.
    new_rows: How rows of new pieces are made, one of NEW_ROWS, or empty.
    resize_positions: Whether positions may be resized.
    path: What messages call the file.
    padding: Rows that the embedding table has after the vocabulary's, for no
      token, where the file is of a layout that is known to have them.
    key: What sets the vocabulary's size, for messages.

  Raises:
    UserError: A table has other rows and no surgery is requested, or rows
      that may hold trained values would be lost.
  """
  result = dict(arrays)
  gemma, encoder = wanted.get(GEMMA), wanted.get(ENCODER)
  if isinstance(gemma, GemmaConfig) and GEMMA in found:
    name = f'{GEMMA}/embedding'
    table, rows = arrays[name], gemma.vocab_size
    if table.shape[0] > rows:
      _check_unused(table, rows, padding, key, f'{name} of {path}')
    result[name] = _fit_rows(table, rows, new_rows, f'{name} of {path}')
  if isinstance(encoder, SiglipConfig) and ENCODER in found:
    name = f'{ENCODER}/position_embedding'
    if arrays[name].shape[0] != encoder.tokens:
      if not resize_positions:
        raise UserError(
          f'{name} of {path} has {arrays[name].shape[0]} rows and the encoder '
          f'at {encoder.image_size} px needs {encoder.tokens}; set '
          'resize_positions, or use the image size of the file'
        )
      result[name] = Resized(arrays[name], encoder.tokens)
  return result


def _fit_rows(
  table: LazyArray, rows: int, new_rows: str, name: str
) -> LazyArray:
  there = table.shape[0]
  if there < rows and new_rows not in NEW_ROWS:
    raise UserError(
      f'{name} has {there} rows and the vocabulary {rows}; set new_rows to '
      f'{" or ".join(map(repr, NEW_ROWS))} to add {rows - there}'
    )
  return table if there == rows else WithRows(table, rows, new_rows)


def _check_unused(
  table: LazyArray, rows: int, padding: int, key: str, name: str
) -> None:
  """Checks that the rows after the vocabulary's are padding.

  They are where all their values are zero, and where the file's layout is
  known to have as many: the official Flax tables of Gemma 1 and 2. Any other
  row may be that of a token that was added and trained.

  Raises:
    UserError: They may be trained.
  """
  there = table.shape[0]
  surplus = there - rows
  counts = f'{name} has {there} rows and the vocabulary only {rows}'
  is_padding = surplus == padding or (
    surplus <= _PADDING and not _read_rows(table, rows).any()
  )
  if not is_padding:
    raise UserError(
      f'{counts}; the last {surplus} may be of tokens that were added and '
      f'trained: set {key}={there} to keep them'
    )
  logging.info(
    '%s; the last %d are padding and left out (%s=%d keeps them)',
    counts,
    surplus,
    key,
    there,
  )


def _read_rows(table: LazyArray, first: int) -> np.ndarray:
  """The rows of a table from a number on."""
  there, *rest = table.shape
  return read(table, (slice(first, there), *full_slices(tuple(rest))))


@dataclasses.dataclass(frozen=True)
class _Table:
  """A table [rows D] with another number of rows.

  Attributes:
    base: The table.
    rows: Rows to have.
  """

  base: LazyArray
  rows: int

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""
    return (self.rows, *self.base.shape[1:])

  @property
  def dtype(self) -> np.dtype:
    """The dtype of the file."""
    return self.base.dtype

  def origins(self) -> Iterator[tuple[str, np.ndarray]]:
    """What messages call each tensor of the table, and the tensor."""
    return self.base.origins() if isinstance(self.base, Traced) else iter(())


@dataclasses.dataclass(frozen=True)
class WithRows(_Table):
  """An embedding table with more or fewer rows; the first ones stay.

  Attributes:
    new_rows: 'normal' for N(0, 0.02^2), 'mean' for the mean of all old rows.
  """

  new_rows: str

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""
    first, *rest = where
    cut = min(max(self.base.shape[0], first.start), first.stop)
    if first.start < cut:
      self.base.read_into(
        out[: cut - first.start], (slice(first.start, cut), *rest)
      )
    if cut < first.stop:
      start = cut - self.base.shape[0]
      new = self._new[start : start + first.stop - cut]
      out[cut - first.start :] = new[(slice(None), *rest)]

  @functools.cached_property
  def _new(self) -> np.ndarray:
    there, width = self.base.shape
    shape = (self.rows - there, width)
    if self.new_rows == 'normal':
      rng = np.random.default_rng(0)
      return rng.normal(0, _STD, shape).astype(np.float32)
    total = np.zeros(width)
    for start in range(0, there, _BLOCK):
      rows = slice(start, min(start + _BLOCK, there))
      part = read(self.base, (rows, slice(0, width)), np.dtype(np.float32))
      total += part.sum(0, dtype=np.float64)
    return np.broadcast_to((total / there).astype(np.float32), shape)


@dataclasses.dataclass(frozen=True)
class Resized(_Table):
  """A table of positions [M D] of a square grid, for another grid.

  Linear interpolation with anti-aliasing where the grid shrinks, in float32.
  """

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""
    copy(out, self._value.astype(out.dtype)[where])

  @functools.cached_property
  def _value(self) -> np.ndarray:
    there, width = self.base.shape
    before, after = round(there**0.5), round(self.rows**0.5)
    table = read(self.base, full_slices(self.base.shape), np.dtype(np.float32))
    grid = jnp.asarray(table).reshape(before, before, width)
    grid = jax.image.resize(grid, (after, after, width), 'linear')
    return np.asarray(grid).reshape(self.rows, width)
