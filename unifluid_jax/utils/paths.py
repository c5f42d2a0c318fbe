"""Folders of runs: on this machine, or in a bucket of Google Cloud Storage."""

import contextlib
import os
import pathlib
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from typing import TypeAlias

import fsspec
from etils import epath

from unifluid_jax.utils.errors import UserError

AnyPath: TypeAlias = pathlib.Path | epath.Path
"""A path on this machine, or gs://BUCKET/..."""


_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:/')
_BUCKET = 'gs://'


def to_path(text: str) -> AnyPath:
  """The path that a flag or a config names.

  `~` is the home folder. A name that is on disk in another Unicode form, as
  between macOS and Linux, is found, see `as_on_disk`.

  Raises:
    UserError: It cannot be a path, or it is in a bucket and the package that
      reads buckets is missing.
  """
  if text.startswith(_BUCKET):
    return _to_bucket(text)
  if _SCHEME.match(text):
    raise UserError(
      f'{text} is neither a path on this machine nor gs://BUCKET/...; copy '
      'the files here and name that path'
    )
  if '\0' in text:
    raise UserError(f'{text!r} has a NUL character; no path may have one')
  return as_on_disk(_expand_home(text))


def local_path(text: str, what: str) -> pathlib.Path:
  """The path on this machine that a flag or a config names.

  Args:
    text: The path.
    what: What the message calls it, such as '--out=PATH'.

  Raises:
    UserError: It is empty or in a bucket, or cannot be a path.
  """
  if not text:
    raise UserError(f'{what} is empty; name a path on this machine')
  if text.startswith(_BUCKET):
    raise UserError(
      f'{what} is in a bucket; name a path on this machine, and copy with '
      '`gcloud storage cp`'
    )
  path = to_path(text)
  assert isinstance(path, pathlib.Path)
  return path


def as_on_disk(path: pathlib.Path) -> pathlib.Path:
  """The path in the Unicode form that its files have on disk.

  `é` is one code point (NFC) or two (NFD). Linux tells the two apart, macOS
  does not, so a list of files that was written on one may name them otherwise
  than they are on the other.

  Args:
    path: The path as given.

  Returns:
    The path as given if it exists, or if nothing on disk matches it; else the
    longest part of it that exists in any form, and the rest as given.
  """
  if str(path).isascii() or os.path.lexists(path):
    return path
  found = pathlib.Path(path.anchor)
  parts = path.parts[1:] if path.anchor else path.parts
  for i, part in enumerate(parts):
    name = _name_on_disk(found, part)
    if name is None:
      return found.joinpath(*parts[i:])
    found /= name
  return found


def _name_on_disk(folder: pathlib.Path, name: str) -> str | None:
  """The name in a folder that is the same text; None if there is none."""
  composed = unicodedata.normalize('NFC', name)
  for form in (name, composed, unicodedata.normalize('NFD', name)):
    if os.path.lexists(folder / form):
      return form
  if name.isascii():
    return None
  try:
    names = os.listdir(folder)
  except OSError:
    return None
  same = (n for n in names if unicodedata.normalize('NFC', n) == composed)
  return next(same, None)


def _expand_home(text: str) -> pathlib.Path:
  expanded = os.path.expanduser(text)
  if expanded.startswith('~'):
    name = text.partition('/')[0]
    raise UserError(
      f'{text}: there is no home folder {name}; write ./{text} for a folder of '
      'that name'
    )
  path = pathlib.Path(expanded)
  # ./~ loses its ./, and must not become a home folder later.
  return path.absolute() if str(path).startswith('~') else path


def _to_bucket(text: str) -> epath.Path:
  try:
    fsspec.get_filesystem_class('gcs')
  except ImportError as error:
    raise UserError(
      f'{text} is in a bucket, and gcsfs, which reads buckets, is missing: pip '
      "install 'unifluid_jax[tpu]', or 'etils[epath-gcs]' without a TPU"
    ) from error
  return epath.Path(text)


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


def check_folder(folder: pathlib.Path) -> None:
  """Checks that files can be written to a folder, without leaving any.

  Args:
    folder: The folder; it may not exist yet.

  Raises:
    OSError: It cannot be made, or no file can be made in it.
  """
  made = [p for p in (folder, *folder.parents) if not os.path.exists(p)]
  try:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  finally:
    for path in made:
      # It was not made, or another program uses it meanwhile.
      with contextlib.suppress(OSError):
        path.rmdir()


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
