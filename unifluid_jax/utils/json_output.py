"""The file that --json names, for what takes long to find out."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import local_path


def check_json(name: str | None) -> None:
  """Checks that the file can be written, before any work.

  Args:
    name: What --json was given; None asks for no file.

  Raises:
    UserError: It is a folder, or in none that can be written.
  """
  if name is None:
    return
  if os.path.isdir(_path(name)):
    raise UserError(f'--json={name} is a folder; name a file in it')
  with _telling(name):
    partial = _partial(name)
    partial.touch()
    # Another process may have been here.
    partial.unlink(missing_ok=True)


def write_json(name: str | None, result: Any) -> None:
  """Writes a result to the file atomically.

  Raises:
    UserError: It cannot be written.
  """
  if name is None:
    return
  with _telling(name):
    partial = _partial(name)
    partial.write_text(f'{json.dumps(result, indent=2)}\n', encoding='utf-8')
    partial.replace(_path(name))


def _path(name: str) -> pathlib.Path:
  return local_path(name, f'--json={name}')


def _partial(name: str) -> pathlib.Path:
  return pathlib.Path(f'{_path(name)}.partial')


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f'--json={name}: {error.strerror}; name a file in a folder that can be '
      'written'
    ) from error
