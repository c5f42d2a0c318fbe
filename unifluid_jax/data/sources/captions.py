"""The captions of image files: from their names, files beside them, a table."""

import csv
import io
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError

IMAGE_COLUMNS = ('image', 'file_name')
TEXT_COLUMNS = ('text', 'caption')
"""Names of the columns, or keys, of a table; the first that it has counts."""

_SEPARATORS = re.compile(r'[\s_\-+.]+')
_NUMBERING = re.compile(r'( \(?\d+\)?)+$')
_DELIMITERS = ',;\t'

Row = tuple[str, list[str], str]
"""The path of an image, its texts, and the row's place for messages."""


def from_name(name: str) -> str:
  """The caption that the name of a file spells; empty if it is a number.

  Signs between words read as spaces, and a number at the end is left out:
  'red_fox-03.png' is 'red fox'.
  """
  stem = unicodedata.normalize('NFC', pathlib.PurePath(name).stem)
  words = _SEPARATORS.sub(' ', stem).strip()
  return _NUMBERING.sub('', f' {words}').strip()


def from_sidecar(file: pathlib.Path) -> list[str]:
  """The captions of a text file, one a line.

  Raises:
    UserError: The file cannot be read, or is not UTF-8.
  """
  # Not splitlines, to which other signs end a line as well.
  return clean(_read(file).split('\n'))


def clean(texts: Iterable[str]) -> list[str]:
  """Texts without spaces around them, empty ones and repetitions."""
  return [*dict.fromkeys(filter(None, map(str.strip, texts)))]


def read_table(file: pathlib.Path) -> list[Row]:
  """The rows of a table of images and captions.

  It is a CSV file with a header, whose cells are separated by commas,
  semicolons or tabs, or, if its name ends in '.jsonl', a file of one JSON
  object a line. An image may have several rows.

  Raises:
    UserError: It cannot be read, or lacks a column; names file and line.
  """
  if file.suffix.casefold() == '.jsonl':
    return [*_read_jsonl(file)]
  return [*_read_csv(file)]


def _read(file: pathlib.Path) -> str:
  try:
    lfs.check_file(file)
    return file.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read {file} as UTF-8 text: {error}') from error


def _read_jsonl(file: pathlib.Path) -> Iterator[Row]:
  for number, line in enumerate(_read(file).split('\n'), 1):
    place = f'{file}, line {number}'
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise UserError(f'{place} is not JSON: {error}') from error
    if not isinstance(record, dict):
      raise UserError(f'{place} is not a JSON object')
    image, text = (
      _pick(record, c, place) for c in (IMAGE_COLUMNS, TEXT_COLUMNS)
    )
    texts = text if isinstance(text, list) else [text]
    texts = ['' if t is None else t for t in texts]
    if not all(isinstance(value, str) for value in (image, *texts)):
      raise UserError(f'{place}: the image or its text is not a string')
    _check_unicode(texts, place)
    yield image, clean(texts), place


def _check_unicode(texts: Iterable[str], place: str) -> None:
  """Rejects halves of characters, which JSON can hold and UTF-8 cannot."""
  try:
    ''.join(texts).encode()
  except UnicodeEncodeError as error:
    raise UserError(f'{place}: the text is not Unicode: {error}') from error


def _pick(record: Mapping[str, Any], names: Iterable[str], place: str) -> Any:
  """The value of the first of some keys that a record has."""
  for name in names:
    if name in record:
      return record[name]
  raise UserError(f'{place} has none of the keys {", ".join(names)}')


def _read_csv(file: pathlib.Path) -> Iterator[Row]:
  # The csv module reads line breaks within quotes itself.
  text = io.StringIO(_read(file), newline='')
  header = text.readline()
  text.seek(0)
  delimiter = max(_DELIMITERS, key=header.count)
  rows = csv.reader(text, delimiter=delimiter, strict=True)
  try:
    columns = [name.strip().casefold() for name in next(rows, [])]
    image, caption = (
      _find(columns, names, file) for names in (IMAGE_COLUMNS, TEXT_COLUMNS)
    )
    for row in rows:
      place = f'{file}, line {rows.line_num}'
      if not any(cell.strip() for cell in row):
        continue
      if len(row) != len(columns):
        raise UserError(
          f'{place} has {len(row)} cells and the header {len(columns)}; put '
          'texts with commas or quotes into double quotes'
        )
      yield row[image].strip(), clean([row[caption]]), place
  except csv.Error as error:
    raise UserError(f'{file}, line {rows.line_num}: {error}') from error


def _find(columns: list[str], names: Iterable[str], file: pathlib.Path) -> int:
  """The index of the first of some columns that a table has."""
  for name in names:
    if name in columns:
      return columns.index(name)
  raise UserError(
    f'{file} has none of the columns {", ".join(names)} in its first line; it '
    f'has {", ".join(columns) or "none"}'
  )


def normal_path(path: str) -> str:
  """One spelling of a relative path: '/' between folders, composed letters."""
  return unicodedata.normalize('NFC', os.path.normpath(path))
