"""The one exception that stands for a user's mistake."""

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
