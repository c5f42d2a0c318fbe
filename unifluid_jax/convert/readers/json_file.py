"""JSON of unknown origin."""

import collections
import json
import pathlib
from typing import Any

from unifluid_jax import lfs
from unifluid_jax.errors import UserError


def parse(text: bytes | str) -> Any:
  """The value of a JSON text.

  Raises:
    ValueError: It is no JSON, nested too deeply, or an object has a key twice.
  """
  try:
    return json.loads(text, object_pairs_hook=_unique)
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error


def read(file: pathlib.Path) -> Any:
  """The value of a JSON file.

  Raises:
    UserError: It cannot be read, or is no JSON.
  """
  try:
    if file.exists() and not file.is_file():
      raise UserError(f'{file} is not a regular file; download it again')
    content = file.read_bytes()
    lfs.check(content, file)
    return parse(content)
  except OSError as error:
    raise UserError(f'cannot read {file}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(
      f'{file} is no JSON ({error}); download it again'
    ) from error


def read_if_there(file: pathlib.Path) -> Any:
  """The value of a JSON file; None where there is no such file.

  Raises:
    UserError: There is something, such as a link to nothing, that cannot be
      read or is no JSON.
  """
  try:
    is_there = file.exists() or file.is_symlink()
  except OSError as error:
    raise UserError(f'cannot read {file}: {error.strerror}') from error
  return read(file) if is_there else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object, whose keys must differ."""
  result = dict(pairs)
  if len(result) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    twice = counts.most_common(1)[0][0]
    raise ValueError(f'{twice} is in it twice')
  return result
