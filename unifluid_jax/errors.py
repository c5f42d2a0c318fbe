"""The one exception that stands for a user's mistake."""

import math
import re
from collections.abc import Collection
from typing import Any


class UserError(Exception):
  """A wrong config, record, file or checkpoint, told in one message.

  The message names the thing that is wrong and the mend. Entry points print
  it without a traceback and exit with code 1.
  """


def check_least(section: str, config: Any, least: int, *keys: str) -> None:
  """Refuses numbers of a config's section that are too small.

  Args:
    section: What the message calls the section.
    config: The section.
    least: What each number must be at least.
    *keys: Names of the numbers.

  Raises:
    UserError: One is smaller.
  """
  for key in keys:
    value = getattr(config, key)
    if value < least:
      raise UserError(
        f'{section}.{key} is {value}; it must be at least {least}'
      )


def check_most(section: str, config: Any, most: int, *keys: str) -> None:
  """Refuses sizes of a config's section that no machine could hold.

  The limits are far above all that is known to be trained; they are there to
  stop a slip of the finger before it fills the memory.

  Args:
    section: What the message calls the section.
    config: The section.
    most: What each number may be at most.
    *keys: Names of the numbers.

  Raises:
    UserError: One is larger.
  """
  for key in keys:
    value = getattr(config, key)
    if value > most:
      raise UserError(f'{section}.{key} is {value}; it must be at most {most}')


def check_between(
  section: str, config: Any, low: float, high: float, *keys: str
) -> None:
  """Refuses numbers of a config's section outside of [low, high).

  Args:
    section: What the message calls the section.
    config: The section.
    low: The least that each number may be.
    high: What each must be less than; infinity for any finite number.
    *keys: Names of the numbers.

  Raises:
    UserError: One is outside, or is no number.
  """
  for key in keys:
    value = getattr(config, key)
    if not low <= value < high:
      bounds = f'at least {low:g}'
      bounds += ' and finite' if high == math.inf else f', less than {high:g}'
      raise UserError(f'{section}.{key} is {value}; it must be {bounds}')


def check_pattern(what: str, pattern: str) -> None:
  """Refuses what is no regular expression.

  Args:
    what: What the message calls it.
    pattern: The expression.

  Raises:
    UserError: It is none.
  """
  try:
    re.compile(pattern)
  except re.error as error:
    raise UserError(
      f'{what} has {pattern!r}, which is no regular expression: {error}'
    ) from error


def check_matches(what: str, pattern: str, names: Collection[str]) -> None:
  """Refuses a regular expression that is found in no parameter's name.

  Args:
    what: What the message calls the key, and the entry that has the pattern.
    pattern: The expression.
    names: Names of the parameters.

  Raises:
    UserError: It is in none.
  """
  if not any(re.search(pattern, name) for name in names):
    raise UserError(f'{what}, which matches no parameter of the model')
