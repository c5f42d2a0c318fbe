"""Checks the values that a request sends to the page.

They run before Gradio looks at a value, since Gradio opens any file that a
value names and reports a wrong type as a traceback.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unifluid_jax.page import uploads
from unifluid_jax.utils.errors import UserError

Check = Callable[[Any], Any]
"""From a request's value to a valid one; raises a UserError."""

_MOST_CHARACTERS = 10_000  # far more than any model reads


def text(name: str) -> Check:
  """Accepts a text that has words."""

  def check(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
      raise UserError(f'the {name} is empty; write one')
    if len(value) > _MOST_CHARACTERS:
      raise UserError(
        f'the {name} has {len(value):,} characters, more than '
        f'{_MOST_CHARACTERS:,}; shorten it'
      )
    try:
      value.encode()
    except UnicodeEncodeError:
      raise UserError(
        f'the {name} is not valid Unicode; write it again'
      ) from None
    return value

  return check


def integer(name: str, least: int, most: int) -> Check:
  """Accepts an integer in [least, most]; JSON may write it as 4.0."""

  def check(value: Any) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # False also for NaN.
    if not is_number or not least <= value <= most or value != int(value):
      raise UserError(
        f'{name} is not an integer from {least} to {most}; choose one'
      )
    return int(value)

  return check


def upload(folder: pathlib.Path) -> Check:
  """Accepts an upload, as Gradio's own object without anything but a path."""

  def check(value: Any) -> dict[str, Any]:
    path = uploads.find(value, folder)
    return {'path': str(path), 'meta': {'_type': 'gradio.FileData'}}

  return check


def guard(page: Any, checks: Mapping[Any, Check], gradio: Any) -> None:
  """Checks each request's values before Gradio uses them.

  Args:
    page: The `gradio.Blocks` that is served.
    checks: For each component that is read, its check.
    gradio: The module.
  """
  by_id = {id(component): check for component, check in checks.items()}
  inner = page.preprocess_data

  @functools.wraps(inner)
  async def preprocess_data(
    function: Any, values: Any, *rest: Any, **options: Any
  ) -> Any:
    known = [by_id.get(id(component)) for component in function.inputs]
    try:
      # Buttons whose work is the browser's own have no function here.
      if function.fn is None:
        raise UserError('the request names no task of this page')
      valid = _check_all(known, values)
    except UserError as error:
      raise gradio.Error(str(error), print_exception=False) from None
    return await inner(function, valid, *rest, **options)

  page.preprocess_data = preprocess_data


def _check_all(checks: Sequence[Check | None], values: Any) -> list[Any]:
  """The valid values of a request."""
  count = len(values) if isinstance(values, list) else 0
  if count != len(checks):
    raise UserError(
      f'the request has {count} values; this task takes {len(checks)}'
    )
  return [
    check(value) if check else value
    for check, value in zip(checks, values, strict=True)
  ]
