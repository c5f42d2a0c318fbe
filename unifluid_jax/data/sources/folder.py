"""A folder of images with a JSONL file."""

import copy
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from unifluid_jax.data import files, images
from unifluid_jax.data.example import Image
from unifluid_jax.data.sources.base import (
  IMAGE_KEYS,
  KEYS,
  SourceTask,
  Texts,
  prompt,
)
from unifluid_jax.data.sources.split import is_heldout
from unifluid_jax.utils.errors import UserError, listed
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.paths import as_on_disk, local_path
from unifluid_jax.utils.progress import track


class FolderTask(SourceTask):
  """A folder of images with a JSONL file: one JSON object a line.

  Keys are those of KEYS; image and source are paths relative to the file's
  folder. One file can serve several kinds: keys that the kind does not use are
  ignored, and so are lines that have all keys of another kind only:

      {"image": "fox.png", "text": "a fox"}
      {"image": "two.jpg", "question": "how many?", "answer": "2"}
      {"source": "fox.png", "instruction": "make it blue", "image": "blue.png"}
  """

  def __init__(
    self,
    file: str | pathlib.Path,
    kind: str,
    image_size: int,
    split: str = 'all',
    heldout: float = 0.0,
    max_pixels: int = images.MAX_PIXELS,
    encoder_size: int = 0,
  ):
    """Reads the JSONL file and looks for every image.

    Args:
      file: The JSONL file, inside the folder.
      kind: A key of KEYS.
      image_size: Side in pixels to which target images are cropped and resized.
      split: Which lines are the task's, one of `split.SPLITS`.
      heldout: Share of the images that are held out.
      max_pixels: Pixels that an image file may have.
      encoder_size: Side in pixels of the image encoder's inputs.

    Raises:
      UserError: Lines are wrong or images are missing (one error lists the
        first of them and counts all), or all lines are held out of training.
    """
    super().__init__(kind, image_size, max_pixels, encoder_size)
    self._file = local_path(str(file), f'path={file}')
    try:
      # Not splitlines: JSON may hold other line separators, such as U+2028.
      lines = self._file.read_text(encoding='utf-8-sig').split('\n')
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'cannot read {file} as UTF-8 text: {error}') from error
    self._all = self._parse_all(lines)
    if not self._all:
      raise UserError(f'{file} has no records of kind {kind!r}')
    self._share = heldout
    self._records = self._select(split)
    if split == 'train' and not self._records:
      raise UserError(
        f'{file}: all {len(self._all)} lines of kind {kind!r} are held out of '
        f'training; lower data.heldout, which is {heldout}, or add images'
      )

  def of_split(self, split: str) -> 'FolderTask':
    """Returns the same task over another split, which may be empty."""
    task = copy.copy(self)
    task._records = self._select(split)
    return task

  def _select(self, split: str) -> list[Mapping[str, Any]]:
    """The records of a split; one of them is held out if any image is."""
    if split == 'all':
      return self._all
    keys = [key for key in KEYS[self.kind] if key in IMAGE_KEYS]
    folder, wanted = self._file.parent, split == 'heldout'
    return [
      record
      for record in self._all
      if any(is_heldout(record[key], folder, self._share) for key in keys)
      == wanted
    ]

  def __len__(self) -> int:
    """Number of lines of this kind and split."""
    return len(self._records)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """The object of a line, with its 'place' for error messages."""
    return self._records[index]

  def texts(self, index: int) -> tuple[Texts, Texts]:
    """Returns prefix and target texts of a line, without its images.

    Several texts are alternatives; a target image has none.
    """
    record = self._records[index]
    *keys, target = KEYS[self.kind]
    asked = next((key for key in keys if key not in IMAGE_KEYS), None)
    read: Texts = (
      (prompt(self.kind, {}),)
      if asked is None
      else tuple(
        prompt(self.kind, {asked: text})
        for text in self.read_texts(record, asked)
      )
    )
    written = () if target in IMAGE_KEYS else self.read_texts(record, target)
    return read, written

  def read_image(self, record: Mapping[str, Any], key: str) -> Image:
    """Reads the image file that the record names."""
    path = self._image_path(record[key])
    name = f'{record["place"]}: {path}'
    return self.decode(files.read(path, name), name)

  def read_texts(self, record: Mapping[str, Any], key: str) -> Texts:
    """The text, or the list of texts, of a record."""
    value = record[key]
    return (value,) if isinstance(value, str) else tuple(value)

  def _parse_all(self, lines: Sequence[str]) -> list[Mapping[str, Any]]:
    """The records of all lines that are of this kind."""
    records: list[Mapping[str, Any]] = []
    wrong: list[str] = []
    count = 0
    for number, line in track([*enumerate(lines, 1)], f'lines of {self._file}'):
      if not line.strip():
        continue
      count += 1
      try:
        record = self._parse(line, f'{self._file}, line {number}')
      except UserError as error:
        wrong.append(str(error))
      else:
        records += [record] if record else []
    if wrong:
      title = f'{len(wrong)} of {count} lines of {self._file} are wrong'
      raise UserError(listed(title, wrong) if wrong[1:] else wrong[0])
    if 0 < len(records) < count:
      logging.info(
        '%s: %d of %d lines are of kind %s',
        self._file,
        len(records),
        count,
        self.kind,
      )
    return records

  def _image_path(self, name: str) -> pathlib.Path:
    """The image file that a record names."""
    if name.startswith('~/'):
      return local_path(name, name)
    return as_on_disk(self._file.parent / name)

  def _parse(self, line: str, place: str) -> Mapping[str, Any] | None:
    """The record of a line, checked; None if it is of another kind."""
    try:
      record = parse_json(line)
    except ValueError as error:
      raise UserError(f'{place} is not JSON: {error}') from error
    if not isinstance(record, dict):
      raise UserError(f'{place} is not a JSON object, like {{"text": "a fox"}}')
    missing = [key for key in KEYS[self.kind] if key not in record]
    if missing and any(record.keys() >= {*keys} for keys in KEYS.values()):
      return None
    if missing:
      raise UserError(
        f'{place} has no key {missing[0]!r}; the kind {self.kind!r} needs '
        f'{list(KEYS[self.kind])}'
      )
    for key in KEYS[self.kind]:
      self._check_value(key, record[key], place)
    return {key: record[key] for key in KEYS[self.kind]} | {'place': place}

  def _check_value(self, key: str, value: Any, place: str) -> None:
    """Rejects a value of the wrong type and an image that is not there."""
    if key in IMAGE_KEYS:
      if not isinstance(value, str):
        raise UserError(f'{place}: {key!r} is not the path of an image')
      # Unlike a path's own method, False also for a name that cannot be.
      if not os.path.isfile(self._image_path(value)):
        raise UserError(
          f'{place}: the image {self._file.parent / value} does not exist'
        )
      return
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
      raise UserError(f'{place}: {key!r} is neither a text nor a list of texts')
    for text in texts:
      try:
        text.encode()
      except UnicodeEncodeError as error:
        raise UserError(f'{place}: {key!r} is not Unicode: {error}') from error
