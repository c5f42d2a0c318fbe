"""Whether arrays hold NaN or infinity."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@jax.jit
def _are_finite(arrays: Sequence[Float[Array, '...']]) -> list[Bool[Array, '']]:
  """Whether all numbers of each array are finite.

  The sum is 0, or NaN: 0 times NaN or infinity is NaN. This is several times as
  fast as `isfinite` of each number. A maximum would be as fast, but loses NaN
  where devices combine theirs.

  One program serves all arrays: of several programs that run at once, each
  device may choose another order, and their collectives would wait forever.
  """
  return [jnp.isfinite(jnp.sum(array * 0)) for array in arrays]


def not_finite(tree: Any) -> list[str]:
  """Names of the arrays that hold a number that is not finite.

  Args:
    tree: Arrays, on devices or on the host; other leaves are not looked at.
  """
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    if isinstance(leaf, jax.Array | np.ndarray)
    and jnp.issubdtype(leaf.dtype, jnp.floating)
  }
  with jax.transfer_guard('allow'):
    flags = jax.device_get(_are_finite([*named.values()]))
  return [
    name for name, is_finite in zip(named, flags, strict=True) if not is_finite
  ]


def list_not_finite(names: list[str]) -> str:
  """The first of the names that `not_finite` finds, for a message."""
  more = f' and {len(names) - 3} others' if len(names) > 3 else ''
  return f'{", ".join(names[:3])}{more} hold NaN or infinity'
