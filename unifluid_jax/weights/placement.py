"""From lazy arrays straight onto devices."""

from collections.abc import Mapping

import jax
import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import LazyArray, Slices, read


def place(
  arrays: Mapping[str, LazyArray],
  targets: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
  """Reads arrays onto the devices that targets name.

  One array is read at a time, and of it only the parts of this process's
  devices, so the host holds no second copy of the model.

  Args:
    arrays: The arrays.
    targets: Shape, dtype and sharding of each of them.

  Raises:
    UserError: An array is of another shape than its target, or holds values
      that are not finite, or too large for the dtype of the target.
  """
  wrong = [
    f'{name} is {list(array.shape)} where {list(targets[name].shape)} is wanted'
    for name, array in arrays.items()
    if array.shape != targets[name].shape
  ]
  if wrong:
    raise UserError(f'the weights do not fit: {"; ".join(wrong[:8])}')
  return {
    name: _place(name, array, targets[name]) for name, array in arrays.items()
  }


def _place(
  name: str, array: LazyArray, target: jax.ShapeDtypeStruct
) -> jax.Array:
  held: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

  def part(index: Slices | None) -> np.ndarray:
    assert index is not None
    bounds = tuple(
      s.indices(n)[:2] for s, n in zip(index, array.shape, strict=True)
    )
    if bounds not in held:
      where = tuple(slice(*b) for b in bounds)
      held[bounds] = read(array, where, np.dtype(target.dtype), name)
    return held[bounds]

  return jax.make_array_from_callback(array.shape, target.sharding, part)
