"""Processes rows of a batch in parts, to bound the memory of a device."""

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
  """Splits rows: part i is rows i, i + parts, ..., a share of each device."""
  # Not -1: a config without images gives arrays without elements.
  return jnp.moveaxis(x.reshape(len(x) // parts, parts, *x.shape[1:]), 1, 0)


def map_rows(
  function: Callable[[Shaped[Array, 'm ...']], T],
  x: Shaped[Array, 'n ...'],
  most: int,
) -> T:
  """Applies a function to rows, at most `most` per device at once.

  Args:
    function: Maps rows to a pytree of arrays of as many rows, each row on its
      own.
    x: All rows.
    most: Largest number of rows per device at once; parts are equal.
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
