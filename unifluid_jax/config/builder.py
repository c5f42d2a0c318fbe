"""Builds frozen dataclasses from an ml_collections config, strictly.

Unknown keys, missing required keys and values of another type raise a
`UserError` that names the key and similar keys.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import ml_collections

from unifluid_jax.utils.errors import Collector, UserError

T = TypeVar('T')


_INT32 = 2**31
"""Numbers on the devices are less; seeds alone have all 32 bits."""


def build(
  cls: type[T],
  config: ml_collections.ConfigDict | Mapping[str, Any],
  path: str = 'config',
) -> T:
  """Builds a (nested) dataclass from a config section.

  Args:
    cls: Dataclass to build.
    config: Mapping of field names to values or sections.
    path: Name of the section, for messages.

  Returns:
    The instance; fields that the section leaves out keep their defaults.

  Raises:
    UserError: Lists all unknown keys, missing keys and values of another type.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  hints = typing.get_type_hints(cls, include_extras=True)
  fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
  problems = Collector()
  values: dict[str, Any] = {}
  for key, value in config.items():
    with problems.catch():
      if key not in fields:
        raise UserError(_unknown_key(path, key, list(fields)))
      values[key] = _value(hints[key], value, f'{path}.{key}')
  missing = [
    name
    for name, field in fields.items()
    if name not in config
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  ]
  if missing:
    problems.add(UserError(f'{path} lacks {", ".join(missing)}'))
  problems.check()
  return cls(**values)


def to_dict(instance: Any) -> Any:
  """Inverts `build`: returns plain dicts and lists, for JSON."""
  if dataclasses.is_dataclass(instance):
    return {
      field.name: to_dict(getattr(instance, field.name))
      for field in dataclasses.fields(instance)
    }
  if isinstance(instance, Mapping):
    return {key: to_dict(value) for key, value in instance.items()}
  if isinstance(instance, tuple | list):
    return [to_dict(value) for value in instance]
  return instance


def _unknown_key(path: str, key: Any, known: list[str]) -> str:
  near = difflib.get_close_matches(str(key), known, n=1)
  hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(known)}'
  return f'{path} has no key {key!r}; {hint}'


def _value(hint: Any, value: Any, path: str, words: Sequence[str] = ()) -> Any:
  """Converts a value to a hint's type; `words` are allowed instead of it."""
  if dataclasses.is_dataclass(hint):
    return build(hint, _section(value, path), path)  # type: ignore[arg-type]
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    hint, *words = arguments
    return value if value in words else _value(hint, value, path, words)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in arguments:
      return None
    (hint,) = [a for a in arguments if a is not type(None)]
    return _value(hint, value, path)
  if origin is tuple:
    return _tuple(arguments, value, path)
  if origin in (dict, Mapping):
    return _mapping(arguments[1], _section(value, path), path)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    try:
      return float(value)
    except OverflowError as error:
      raise UserError(f'{path} is beyond the largest number') from error
  if isinstance(hint, type) and (
    not isinstance(value, hint) or (hint is int and isinstance(value, bool))
  ):
    raise UserError(
      f'{path} is {value!r} ({type(value).__name__}); it must be of type '
      f'{" or ".join((hint.__name__, *map(repr, words)))}'
    )
  is_seed = path.rpartition('.')[2] == 'seed'
  if hint is int and not is_seed and not -_INT32 <= value < _INT32:
    # Omits the value: Python does not print very long integers.
    raise UserError(
      f'{path} is out of range; it must be less than 2^31 = {_INT32:,} in size'
    )
  return value


def _mapping(
  hint: Any, section: ml_collections.ConfigDict | Mapping, path: str
) -> dict[str, Any]:
  problems = Collector()
  values = {}
  for key, item in section.items():
    with problems.catch():
      values[key] = _value(hint, item, f'{path}.{key}')
  problems.check()
  return values


def _section(value: Any, path: str) -> ml_collections.ConfigDict | Mapping:
  if not isinstance(value, ml_collections.ConfigDict | Mapping):
    raise UserError(f'{path} is {value!r}; it must be a section of keys')
  return value


def _tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple:
  if not isinstance(value, list | tuple):
    raise UserError(f'{path} is {value!r}; it must be a list')
  if arguments[-1] is not Ellipsis and len(arguments) != len(value):
    raise UserError(
      f'{path} has {len(value)} values; it must have {len(arguments)}'
    )
  return tuple(
    _value(arguments[0], item, f'{path}[{i}]') for i, item in enumerate(value)
  )
