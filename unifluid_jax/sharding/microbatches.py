"""Rows of a batch, some at a time: what a device holds at once stays small."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from unifluid_jax.sharding.logical_axes import constrain, shards

T = TypeVar('T')


def split_rows(
  x: Shaped[Array, 'n ...'], parts: int
) -> Shaped[Array, 'p m ...']:
  """Rows i, i + parts, ... make part i: a share of what each device has."""
  # Not -1: of images that a config has none of, there are no elements.
  return jnp.moveaxis(x.reshape(len(x) // parts, parts, *x.shape[1:]), 1, 0)


def map_rows(
  function: Callable[[Shaped[Array, 'm ...']], T],
  x: Shaped[Array, 'n ...'],
  most: int,
) -> T:
  """Applies a function to rows, no more than `most` of a device at once.

  Args:
    function: From rows to a pytree of arrays of as many rows; what it makes of
      a row does not depend on other rows.
    x: All rows.
    most: Rows of a device at once; rows are split evenly, into more parts if
      need be.
  """
  rows, axes = x.shape[0], ('rows', *(None,) * (x.ndim - 1))
  held = rows // shards(axes, x.shape)
  if held <= most:
    return function(x)
  parts = next(
    p for p in range(1, held + 1) if held % p == 0 and held <= p * most
  )
  results = jax.lax.map(
    lambda part: function(constrain(part, axes)), split_rows(x, parts)
  )
  return jax.tree.map(
    lambda y: jnp.moveaxis(y, 0, 1).reshape(rows, *y.shape[2:]), results
  )
