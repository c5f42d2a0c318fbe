"""Errors that report a user's mistake."""

import contextlib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

SHOWN = 10
"""Most lines of a list in a message."""


class UserError(Exception):
  """A wrong config, record, file or checkpoint, reported in one message.

  The message names the thing that is wrong and the mend. Entry points print
  it without a traceback and exit with code 1.
  """


class ArgumentTypeError(UserError, TypeError):
  """An argument of the Python API is of the wrong type."""


class ArgumentValueError(UserError, ValueError):
  """An argument of the Python API has a value that is not allowed."""


class UserErrors(UserError):
  """Several mistakes in one exception.

  Attributes:
    errors: The mistakes.
  """

  def __init__(self, errors: Sequence[UserError]):
    """Makes one message of all of them."""
    lines = ['  ' + str(error).replace('\n', '\n  ') for error in errors]
    super().__init__('\n'.join((f'{len(errors)} problems:', *lines)))
    self.errors = tuple(errors)


class Collector:
  """Collects mistakes from several checks, to report them together."""

  def __init__(self) -> None:
    self._errors: dict[str, UserError] = {}

  @contextlib.contextmanager
  def catch(self, prefix: str = '') -> Iterator[None]:
    """Ends the block at a `UserError`, and keeps the error.

    Args:
      prefix: What its message is to begin with.
    """
    try:
      yield
    except UserErrors as several:
      self.add(*several.errors)
    except UserError as error:
      self.add(UserError(f'{prefix}{error}') if prefix else error)

  def add(self, *errors: UserError) -> None:
    """Keeps errors; one of a message that is known already is dropped."""
    for error in errors:
      self._errors.setdefault(str(error), error)

  def __bool__(self) -> bool:
    """Whether there are errors."""
    return bool(self._errors)

  def check(self) -> None:
    """Raises what was collected.

    Raises:
      UserError: The one error that there is, or `UserErrors`.
    """
    errors = [*self._errors.values()]
    if len(errors) > 1:
      raise UserErrors(errors)
    if errors:
      raise errors[0]


def listed(title: str, lines: Sequence[str]) -> str:
  """A message with a list of at most `SHOWN` lines below its title."""
  shown = [f'  {line}' for line in lines[:SHOWN]]
  left = len(lines) - len(shown)
  if left:
    shown.append(f'  and {left} more')
  return '\n'.join((f'{title}:', *shown))


def check_least(section: str, config: Any, least: int, *keys: str) -> None:
  """Rejects numbers of a config's section that are too small.

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
  """Rejects sizes of a config's section that no machine could hold.

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
  """Rejects numbers of a config's section outside of [low, high).

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
  """Rejects an invalid regular expression.

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
      f'{what} has {pattern!r}, which is not a valid regular expression: '
      f'{error}'
    ) from error


def check_matches(what: str, pattern: str, names: Collection[str]) -> None:
  """Rejects a regular expression that is found in no parameter's name.

  Args:
    what: What the message calls the key, and the entry that has the pattern.
    pattern: The expression.
    names: Names of the parameters.

  Raises:
    UserError: It is in none.
  """
  if not any(re.search(pattern, name) for name in names):
    raise UserError(f'{what}, which matches no parameter of the model')
