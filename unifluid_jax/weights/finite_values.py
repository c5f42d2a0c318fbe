"""Finds values that are not finite: of damaged files, of runs that diverged,
or of a dtype whose range is too small.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from unifluid_jax.utils.errors import UserError

# Values that are looked at together, which fit into a core's cache.
_BLOCK = 1 << 17


def is_finite(values: np.ndarray) -> bool:
  """Whether no value is NaN or infinite; `values` are of a float dtype."""
  infinity, sign = _bits_of(values.dtype)
  return all(
    # Without the sign, NaN and infinity are the largest bit patterns.
    not ((block & ~sign).max() >= infinity)
    for block in _blocks(values.view(infinity.dtype))
  )


def error(
  ours: str, origins: Iterable[tuple[str, np.ndarray]], dtype: np.dtype
) -> UserError:
  """Says which tensor made a parameter of values that are not finite.

  Args:
    ours: Name of the parameter.
    origins: What messages call each tensor that it is made of, and the tensor.
    dtype: Dtype that the parameter is read in.
  """
  bad: collections.Counter[str] = collections.Counter()
  too_large: collections.Counter[str] = collections.Counter()
  for title, values in origins:
    damaged, overflowing = _count(values, dtype)
    bad[title] += damaged
    too_large[title] += overflowing
  bad, too_large = +bad, +too_large
  if bad or not too_large:
    return UserError(
      f'{_told(bad) if bad else ours + " holds values"} not finite (NaN or '
      'infinity); use an undamaged file, or a checkpoint from before the '
      'training diverged'
    )
  return UserError(
    f'{_told(too_large)} too large for {dtype}, whose largest is '
    f'{float(ml_dtypes.finfo(dtype).max):.5g}; choose float32 or bfloat16 for '
    'them (--dtype, or init.dtype of a training)'
  )


def _told(counts: Mapping[str, int]) -> str:
  (title, count), *rest = counts.items()
  values = '1 value' if count == 1 else f'{count} values'
  more = f' (as do {len(rest)} more of its tensors)' if rest else ''
  return f'{title} holds {values}{more}'


def _count(values: np.ndarray, dtype: np.dtype) -> tuple[int, int]:
  """How many values are not finite, and how many more become so in a dtype."""
  damaged = overflowing = 0
  for block in _blocks(values):
    finite = np.isfinite(block)
    damaged += int(block.size - finite.sum())
    with np.errstate(over='ignore', invalid='ignore'):
      overflowing += int((finite & ~np.isfinite(block.astype(dtype))).sum())
  return damaged, overflowing


def _bits_of(dtype: np.dtype) -> tuple[Any, Any]:
  """Infinity and the sign of a float dtype, as whole numbers."""
  unsigned = np.dtype(f'u{dtype.itemsize}')
  infinity = np.array(np.inf, dtype).view(unsigned)[()]
  return infinity, np.array(-0.0, dtype).view(unsigned)[()]


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the values in blocks of one axis, without a copy if possible."""
  if not values.flags.c_contiguous and values.ndim > 1:
    for part in values:
      yield from _blocks(part)
    return
  flat = values.reshape(-1)
  for start in range(0, flat.size, _BLOCK):
    yield flat[start : start + _BLOCK]
