"""Arguments of a config file: --config=experiments/FILE.py:name=value,tiny."""

from collections.abc import Iterable
from typing import Any

import ml_collections

from experiments import tiny
from unifluid_jax import config as config_lib
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment


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
  return ml_collections.ConfigDict(_with_tuples(config_lib.to_dict(experiment)))


def _with_tuples(value: Any) -> Any:
  """Tuples for JSON's lists: flags can set no list."""
  if isinstance(value, dict):
    return {key: _with_tuples(item) for key, item in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
