"""JSON files of unknown origin."""

import pathlib
from typing import Any

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json


def read(file: pathlib.Path) -> Any:
  """The value of a JSON file.

  Raises:
    UserError: It cannot be read, or is not JSON.
  """
  try:
    if file.exists() and not file.is_file():
      raise UserError(f'{file} is not a regular file; download it again')
    content = file.read_bytes()
    lfs.check(content, file)
    return parse_json(content)
  except OSError as error:
    raise UserError(f'cannot read {file}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(
      f'{file} is not JSON ({error}); download it again'
    ) from error


def read_if_there(file: pathlib.Path) -> Any:
  """Reads a JSON file; returns None if it does not exist.

  Raises:
    UserError: There is something, such as a link to nothing, that cannot be
      read or is not JSON.
  """
  try:
    is_there = file.exists() or file.is_symlink()
  except OSError as error:
    raise UserError(f'cannot read {file}: {error.strerror}') from error
  return read(file) if is_there else None
