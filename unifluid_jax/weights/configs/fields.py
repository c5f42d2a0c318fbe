"""Values of a config.json, checked as they are read."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from unifluid_jax.utils.errors import UserError

LARGEST = 10_000_000
"""The largest size that a config may name."""
MOST_LAYERS = 1000
"""Most layers, or blocks of a level."""

Json = Mapping[str, Any]


class Fields:
  """An object of a config.json over the defaults of its kind."""

  def __init__(self, values: Any, defaults: Json | None = None):
    """Takes an object.

    Args:
      values: What the file says.
      defaults: What holds where the file says nothing.

    Raises:
      UserError: `values` is not a JSON object.
    """
    if not isinstance(values, Mapping):
      raise UserError(f'it has {values!r} where an object should be')
    self._values: dict[str, Any] = {**(defaults or {}), **values}

  def get(self, key: str, default: Any = None) -> Any:
    """Returns a value, or `default` if it is missing or null."""
    value = self._values.get(key)
    return default if value is None else value

  def __len__(self) -> int:
    """How many values there are."""
    return len(self._values)

  def section(self, key: str, default: 'Fields | None' = None) -> 'Fields':
    """Returns the object under a key, or `default` or an empty one.

    Raises:
      UserError: It is not an object.
    """
    value = self.get(key)
    if value is None:
      return Fields({}) if default is None else default
    return Fields(value)

  def size(self, key: str) -> int:
    """A whole number above 0."""
    return self._whole(key, self._values.get(key), LARGEST)

  def count(self, key: str) -> int:
    """A number of layers."""
    return self._whole(key, self._values.get(key), MOST_LAYERS)

  def sizes(self, key: str) -> tuple[int, ...]:
    """A list of sizes."""
    return tuple(self._whole(key, n, LARGEST) for n in self.items(key))

  def items(self, key: str) -> list[Any]:
    """A list that is not empty.

    Raises:
      UserError: It has another type.
    """
    value = self._values.get(key)
    if not isinstance(value, list) or not value:
      raise self.wrong(key, 'it must be a list')
    return value

  def number(self, key: str, default: float | None = None) -> float:
    """A finite number above 0.

    Raises:
      UserError: It has another type.
    """
    value = self.get(key, default)
    if not _is_number(value) or value <= 0:
      raise self.wrong(key, 'it must be a number above 0')
    return float(value)

  def maybe(self, key: str) -> float | None:
    """Returns a positive number, or None."""
    return None if self.get(key) is None else self.number(key)

  def numbers(self, key: str, count: int) -> list[float]:
    """A list of `count` finite numbers.

    Raises:
      UserError: It has another type.
    """
    values = self.items(key)
    if len(values) != count or not all(map(_is_number, values)):
      raise self.wrong(key, f'it must be {count} numbers')
    return [float(value) for value in values]

  def one_of(self, key: str, known: Collection[Any], default: Any) -> Any:
    """One of some values.

    Raises:
      UserError: It is another one, which our models do not have.
    """
    value = self.get(key, default)
    if not isinstance(value, str | bool) or value not in known:
      raise self.wrong(key, f'known here: {", ".join(map(str, known))}')
    return value

  def wrong(self, key: str, why: str) -> UserError:
    """The error of a value."""
    shown = repr(self._values.get(key, 'nothing'))[:100]
    return UserError(f'it has {key} {shown}; {why}')

  def _whole(self, key: str, value: Any, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
      raise self.wrong(key, f'sizes are whole numbers from 1 to {most}')
    return value


def _is_number(value: Any) -> bool:
  # A whole number may be too large for math.isfinite; NaN is in no range.
  largest = sys.float_info.max
  return isinstance(value, int | float) and -largest <= value <= largest
