"""Reads image files from disk."""

import os
import pathlib
import stat

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError

MAX_BYTES = 512 * 2**20
"""Bytes that an image file may have."""


def read(path: pathlib.Path, name: str) -> bytes:
  """Reads a whole image file.

  Args:
    path: The file. Links are followed.
    name: What error messages call the file.

  Returns:
    Its content.

  Raises:
    UserError: It cannot be read, is a device, a pipe or a folder, has more
      than MAX_BYTES, or is a Git LFS pointer.
  """
  # Opening a pipe without O_NONBLOCK waits for its writer.
  flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
  try:
    with open(os.open(path, flags), 'rb') as file:
      status = os.fstat(file.fileno())
      if not stat.S_ISREG(status.st_mode):
        raise UserError(
          f'{name} is not a regular file; name the file of an image'
        )
      if status.st_size > MAX_BYTES:
        raise UserError(
          f'{name} has {status.st_size:,} bytes, more than the limit of '
          f'{MAX_BYTES:,}; scale the image down'
        )
      # A file can grow after the check.
      content = file.read(MAX_BYTES)
  except OSError as error:
    raise UserError(f'{name} cannot be read: {error.strerror}') from error
  lfs.check(content, path)
  return content
