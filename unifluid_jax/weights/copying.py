"""Copies arrays whose axes are in another order, or of another dtype."""

import functools

import jax
import numpy as np

from unifluid_jax.weights.readers.dtypes import BFLOAT16

# A part this large is worth a call of XLA, and the transposed one is still in
# the cache when it is written to its place.
_PART_BYTES = 1 << 23


def copy(out: np.ndarray, source: np.ndarray) -> None:
  """out[...] = source, fast where axes are transposed or dtypes differ.

  The source is halved along the axis that is outermost in its file until a
  part fits into the cache. Threads may copy to different parts of one array.
  """
  if source.nbytes > _PART_BYTES:
    axis = _order(source)[0]
    half = source.shape[axis] // 2
    if half:
      for part in (slice(0, half), slice(half, None)):
        at = (slice(None),) * axis + (part,)
        copy(out[at], source[at])
      return
  order = _order(out)
  _write(out.transpose(order), _ordered(source.transpose(order)))


def _order(array: np.ndarray) -> list[int]:
  """The axes from the outermost to the innermost of its memory."""
  strides = [
    abs(stride) if size > 1 else 0
    for stride, size in zip(array.strides, array.shape, strict=True)
  ]
  return sorted(range(array.ndim), key=lambda axis: -strides[axis])


def _ordered(source: np.ndarray) -> np.ndarray:
  """The same values, with axes from the outermost to the innermost."""
  host = _host()
  # JAX would halve what is wider than 4 bytes.
  if _order(source) == [*range(source.ndim)] or source.itemsize > 4 or not host:
    return source
  bits = np.asarray(source).view(f'u{source.itemsize}')
  # XLA's transposition is several times as fast as numpy's.
  return np.asarray(jax.device_put(bits, host)).view(source.dtype)


@functools.cache
def _host() -> jax.Device | None:
  """Returns the CPU device, or None if JAX_PLATFORMS excludes it."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None


def _write(out: np.ndarray, source: np.ndarray) -> None:
  if out.dtype == source.dtype:
    bits = np.dtype(f'u{out.itemsize}')
    out.view(bits)[...] = source.view(bits)
  elif out.dtype == np.float32 and source.dtype == BFLOAT16:
    # The upper half of a float32; ml_dtypes' own cast is many times slower.
    np.left_shift(
      source.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32
    )
  else:
    # Overflows are reported later, with the name of the array.
    with np.errstate(over='ignore', invalid='ignore'):
      out[...] = source
