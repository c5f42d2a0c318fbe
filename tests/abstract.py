"""Arrays without their values."""

from typing import Any

import jax


def abstract(tree: Any) -> Any:
  """Shape, dtype and sharding of each array of a tree."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )
