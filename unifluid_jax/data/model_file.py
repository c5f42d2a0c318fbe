"""Reads a `tokenizer.model`; messages say what to do with other files."""

import pathlib
import shlex

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath, to_path

MODEL, JSON = 'tokenizer.model', 'tokenizer.json'


def read_model(path: str | AnyPath) -> bytes:
  """The content of a SentencePiece model.

  Args:
    path: The file.

  Raises:
    UserError: It cannot be read, or it is a folder, a tokenizer.json or a Git
      LFS pointer; the message names the file or the command to use.
  """
  file = to_path(str(path))
  try:
    if isinstance(file, pathlib.Path):
      _check_kind(file)
    model = file.read_bytes()
  except OSError as error:
    raise UserError(
      f'cannot read the tokenizer {path}: {error.strerror}'
    ) from error
  lfs.check(model, path)
  if model.lstrip()[:1] == b'{':
    raise UserError(
      f'{path} is a tokenizer.json, not a SentencePiece model; '
      f'{conversion(file)}'
    )
  return model


def conversion(file: AnyPath) -> str:
  """Advice on how to convert a tokenizer.json."""
  source, out = (shlex.quote(str(f)) for f in (file, file.with_name(MODEL)))
  return (
    f'convert it: python -m unifluid_jax.convert --source={source} --out={out}'
  )


def _check_kind(file: pathlib.Path) -> None:
  """Rejects anything but a file, and names the file to use."""
  if file.is_file():
    return
  folder = file if file.is_dir() else file.parent
  if file.is_dir() and (folder / MODEL).is_file():
    raise UserError(f'{file} is a folder; name {folder / MODEL}')
  if (folder / JSON).is_file():
    what = 'is a folder' if file.is_dir() else 'does not exist'
    raise UserError(
      f'{file} {what}, but there is {folder / JSON}; '
      f'{conversion(folder / JSON)}'
    )
  if file.is_dir():
    raise UserError(f'{file} is a folder without a {MODEL}; name the file')
  if file.exists():
    raise UserError(f'{file} is not a regular file; name a {MODEL}')
