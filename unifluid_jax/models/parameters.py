"""Declares parameters: an initializer, a shape, logical axes.

The logical axes are names such as 'embed' or 'heads'; the table in
`sharding.logical_axes` maps them to mesh axes. Parameters are float32; a
module casts them to its compute dtype where it uses them.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unifluid_jax.sharding.logical_axes import Axes
from unifluid_jax.utils.errors import UserError, check_pattern

Parameters = dict[str, jax.Array]
"""Values by name, see `flatten`."""

DTYPES = ('float32', 'bfloat16', 'float16')
"""Storage dtypes of weights."""


def normal(
  key: jax.Array, shape: tuple[int, ...], axes: Axes, std: float
) -> nnx.Param:
  """A parameter from N(0, std^2)."""
  assert len(axes) == len(shape), (axes, shape)
  value = std * jax.random.normal(key, shape, jnp.float32)
  return nnx.Param(value, logical_axes=axes)


def fan_in(
  key: jax.Array, shape: tuple[int, ...], axes: Axes, inputs: int | None = None
) -> nnx.Param:
  """A parameter from N(0, 1/inputs); inputs defaults to all axes but the last.

  Args:
    key: Random key.
    shape: Shape of the parameter.
    axes: Logical axis names, one per axis.
    inputs: Number of inputs that each output sums over.
  """
  inputs = inputs or math.prod(shape[:-1])
  return normal(key, shape, axes, inputs**-0.5)


def constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param:
  """A parameter with one value everywhere."""
  assert len(axes) == len(shape), (axes, shape)
  return nnx.Param(jnp.full(shape, value, jnp.float32), logical_axes=axes)


def flatten(model: nnx.Module) -> tuple[nnx.GraphDef, dict[str, Any]]:
  """Splits a model into its structure and its values by name.

  Names are paths such as 'gemma/stack/blocks/mlp/up'. This flat dictionary is
  the one layout that the optimizer, checkpoints and converters know. Values are
  arrays, or their shapes where the model is abstract.
  """
  graphdef, state = nnx.split(model)
  flat = {
    '/'.join(map(str, path)): variable.get_value()
    for path, variable in nnx.to_flat_state(state)
  }
  return graphdef, flat


def unflatten(graphdef: nnx.GraphDef, flat: dict[str, Any]) -> Any:
  """The inverse of `flatten`; cheap, to be called inside jit."""
  state: dict[Any, Any] = {
    tuple(int(part) if part.isdigit() else part for part in name.split('/')): v
    for name, v in flat.items()
  }
  return nnx.merge(graphdef, nnx.from_flat_state(state))


def logical_axes(model: nnx.Module) -> dict[str, Axes]:
  """Logical axis names of each value that `flatten` lists."""
  axes = {}
  for path, variable in nnx.to_flat_state(nnx.state(model)):
    unnamed = (None,) * len(variable.get_value().shape)
    name = '/'.join(map(str, path))
    axes[name] = variable.get_metadata().get('logical_axes', unnamed)
  return axes


def is_matrix(name: str, axes: Axes) -> bool:
  """Whether a parameter, or that of one layer, has two axes or more.

  A bias has none of a matrix, however many heads or parts it is for.
  """
  in_layer = [axis for axis in axes if axis != 'layers']
  return len(in_layer) >= 2 and not name.endswith('bias')


def storage_dtype(entries: Sequence[str], name: str) -> str | None:
  """Returns a parameter's dtype by entries 'PATTERN=DTYPE', or 'DTYPE' for all.

  Args:
    entries: The first entry whose regular expression matches the name counts.
    name: Name of the parameter.
  """
  for entry in entries:
    pattern, _, dtype = entry.rpartition('=')
    if re.search(pattern, name):
      return dtype
  return None


def check_storage(entries: Sequence[str], key: str) -> None:
  """Checks entries for `storage_dtype`.

  Raises:
    UserError: An entry has an unknown dtype or an invalid regular expression;
      `key` names it.
  """
  for entry in entries:
    pattern, _, dtype = entry.rpartition('=')
    check_pattern(key, pattern)
    if dtype not in DTYPES:
      raise UserError(
        f'{key} has {entry!r}; it must be PATTERN=DTYPE with one of {DTYPES}'
      )
