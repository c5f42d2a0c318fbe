"""Arguments of a config file: --config=experiments/FILE.py:name=value,tiny."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from experiments import tiny
from unifluid_jax.config import builder as config_lib
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.utils.errors import UserError


def parse(
  arg: str | None,
  choices: dict[str, Iterable[Any]] | None = None,
  **defaults: Any,
) -> tuple[dict[str, Any], bool]:
  """Reads the text behind the colon.

  Args:
    arg: Comma-separated `name=value` pairs, and `tiny` for the small variant.
    choices: The values that a name may have, for names that have few.
    **defaults: The names that the file has, with their default values; a
      value is read as the type of its default.

  Returns:
    The values, and whether the small variant is wanted.

  Raises:
    UserError: On a name or a value that the file does not know.
  """
  values, is_tiny = dict(defaults), False
  for part in filter(None, (arg or '').split(',')):
    name, _, value = part.partition('=')
    if part == 'tiny':
      is_tiny = True
    elif name in defaults:
      values[name] = _read(
        name, value, defaults[name], (choices or {}).get(name)
      )
    else:
      known = ', '.join((*defaults, 'tiny'))
      raise UserError(f'config argument {part!r} is unknown; known: {known}')
  return values, is_tiny


def _read(name: str, text: str, default: Any, known: Iterable[Any] | None):
  try:
    value = type(default)(text)
  except ValueError as error:
    raise UserError(
      f'config argument {name} is {text!r}; it must be like {default!r}'
    ) from error
  if known is not None and value not in known:
    listed = ', '.join(map(str, known))
    raise UserError(
      f'config argument {name} is {text!r}; it must be one of {listed}'
    )
  return value


def finish(
  config: ml_collections.ConfigDict, is_tiny: bool
) -> ml_collections.ConfigDict:
  """The config with every key, so that flags can set each of them.

  Args:
    config: What differs from the defaults of the sections.
    is_tiny: Whether the small variant is wanted.
  """
  if is_tiny:
    config = tiny.shrink(config)
  experiment = config_lib.build(Experiment, config)
  whole = dataclasses.replace(experiment, edit_sampling=experiment.editing)
  result = ml_collections.ConfigDict(_settable(whole))
  for key in set(result.sampling) - {'guidance'}:
    # What is the same follows, until it is set itself.
    if result.edit_sampling[key] == result.sampling[key]:
      result.edit_sampling[key] = result.sampling.get_oneway_ref(key)
  return result


def _settable(value: Any) -> Any:
  """Sections as dictionaries; what is None knows what it may be set to."""
  if isinstance(value, Mapping):
    return {key: _settable(item) for key, item in value.items()}
  if not dataclasses.is_dataclass(value):
    return value
  hints = typing.get_type_hints(type(value), include_extras=True)
  return {
    field.name: _setting(hints[field.name], item)
    if (item := getattr(value, field.name)) is not None
    else config_dict.placeholder(_optional(hints[field.name]))
    for field in dataclasses.fields(value)
  }


def _setting(hint: Any, value: Any) -> Any:
  """A value, with a type of any kind if it may be a number or a word."""
  if typing.get_origin(hint) is typing.Annotated:
    return config_dict.FieldReference(value, field_type=object)
  return _settable(value)


def _optional(hint: Any) -> type:
  """The type that a key may have besides None."""
  (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
  return typing.get_origin(hint) or hint
