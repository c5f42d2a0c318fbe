"""Arguments of a config file: --config=experiments/FILE.py:name=value,tiny."""

from typing import Any


def parse(arg: str | None, **defaults: Any) -> tuple[dict[str, Any], bool]:
  """Reads the text behind the colon.

  Args:
    arg: Comma-separated `name=value` pairs, and `tiny` for the small variant.
    **defaults: The names that the file has, with their default values; a
      value is read as the type of its default.

  Returns:
    The values, and whether the small variant is wanted.

  Raises:
    ValueError: On a name that the file does not have, or an unreadable value.
  """
  values, tiny = dict(defaults), False
  for part in filter(None, (arg or '').split(',')):
    name, _, value = part.partition('=')
    if part == 'tiny':
      tiny = True
    elif name in defaults:
      values[name] = type(defaults[name])(value)
    else:
      known = ', '.join((*defaults, 'tiny'))
      raise ValueError(f'config argument {part!r} is unknown; known: {known}')
  return values, tiny
