"""Reads files that were uploaded, and no others."""

import os
import pathlib
import stat
from typing import Any

from unifluid_jax.utils.errors import UserError

MOST_BYTES = 32 * 2**20
"""Bytes that an upload may have."""


def find(payload: Any, folder: pathlib.Path) -> pathlib.Path:
  """The upload that a request names.

  Args:
    payload: The request's value: an object whose 'path' is the upload, or None.
    folder: Where uploads are stored.

  Returns:
    Its path, without links.

  Raises:
    UserError: The request names none, or something else. The message doesn't
      reveal whether a file outside of the folder exists.
  """
  if payload is None:
    raise UserError('there is no image yet; choose one')
  refused = UserError('the image is not an uploaded file; upload it first')
  path = payload.get('path') if isinstance(payload, dict) else None
  if not isinstance(path, str):
    raise refused
  try:
    resolved = pathlib.Path(path).resolve(strict=True)
    is_inside = resolved.is_relative_to(folder.resolve())
    status = resolved.lstat() if is_inside else None
  # No such file; a name that cannot be; a loop of links.
  except (OSError, ValueError, RuntimeError):
    raise refused from None
  if status is None or not stat.S_ISREG(status.st_mode):
    raise refused
  _check_size(status)
  return resolved


def read(path: pathlib.Path) -> bytes:
  """The content of an upload that `find` gave.

  Raises:
    UserError: It cannot be read, or is no longer what `find` saw.
  """
  # Neither follows a link nor waits for the other end of a pipe.
  flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  try:
    with open(os.open(path, flags), 'rb') as file:
      status = os.fstat(file.fileno())
      if not stat.S_ISREG(status.st_mode):
        raise UserError('the image is not an uploaded file; upload it first')
      _check_size(status)
      return file.read(MOST_BYTES)
  except OSError as error:
    raise UserError(
      f'the uploaded image cannot be read: {error.strerror}; upload it again'
    ) from error


def _check_size(status: os.stat_result) -> None:
  if status.st_size > MOST_BYTES:
    raise UserError(
      f'the image has {status.st_size:,} bytes; the limit is {MOST_BYTES:,}: '
      'scale it down or compress it'
    )
