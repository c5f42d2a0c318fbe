"""Recognises Git LFS pointers: small text files that stand for large ones.

A clone without Git LFS holds them in place of weights and vocabularies.
Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

import pathlib

from unifluid_jax.utils.errors import UserError

HEAD = b'version https://git-lfs.github.com/spec/'
"""How every pointer starts."""


def check(content: bytes, file: object) -> None:
  """Checks that a file is not a pointer.

  Args:
    content: The file's first bytes, or all of them.
    file: The file's path, for the message.

  Raises:
    UserError: It is a pointer.
  """
  if content.startswith(HEAD):
    folder = str(file).rpartition('/')[0] or '.'
    raise UserError(
      f'{file} is a Git LFS pointer, not the file itself; run `git lfs pull` '
      f'in {folder}'
    )


def check_file(file: pathlib.Path) -> None:
  """Reads the first bytes of a file and makes sure that it is not a pointer.

  Raises:
    UserError: It is a pointer.
    OSError: It cannot be read.
  """
  with file.open('rb') as stream:
    check(stream.read(len(HEAD)), file)
