"""Folders of runs: on this machine, or in a bucket of Google Cloud Storage."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TypeAlias

from etils import epath

AnyPath: TypeAlias = pathlib.Path | epath.Path
"""A path on this machine, or gs://BUCKET/..."""


def to_path(text: str) -> AnyPath:
  """The path that a flag or a config names."""
  return epath.Path(text) if text.startswith('gs://') else pathlib.Path(text)


def write_whole(path: AnyPath, content: bytes) -> None:
  """Writes a file that is there whole or not at all, even if the disk is full
  or the process is killed.
  """
  if isinstance(path, epath.Path):
    path.write_bytes(content)  # Objects of a bucket are whole anyway.
    return
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  with _naming(path):
    try:
      partial.write_bytes(content)
      partial.replace(path)
    finally:
      partial.unlink(missing_ok=True)


def append_text(path: AnyPath, text: str) -> None:
  """Adds to the end of a text file.

  Objects of a bucket cannot grow, and gcsfs would overwrite them without an
  error, so there the whole text is written anew.
  """
  if isinstance(path, epath.Path):
    before = path.read_text(encoding='utf-8') if path.exists() else ''
    path.write_text(before + text, encoding='utf-8')
    return
  with _naming(path), path.open('a', encoding='utf-8') as file:
    file.write(text)


@contextlib.contextmanager
def _naming(path: AnyPath) -> Iterator[None]:
  """Errors name the file, which those of a full disk do not by themselves."""
  try:
    yield
  except OSError as error:
    error.filename = str(path)
    raise
