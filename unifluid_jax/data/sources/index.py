"""Makes the JSONL file of a folder of images."""

import collections
import dataclasses
import json
import os
import pathlib
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence

import PIL.Image

from unifluid_jax.data import images
from unifluid_jax.data.sources import captions
from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import write_whole
from unifluid_jax.utils.progress import track

SUFFIXES = (
  *('.avif', '.bmp', '.gif', '.heic', '.heif', '.jfif', '.jpe', '.jpeg'),
  *('.jpg', '.png', '.ppm', '.tga', '.tif', '.tiff', '.webp'),
)
"""How the names of images end, in any case."""

TABLES = ('metadata.csv', 'metadata.jsonl')
"""Tables of captions that are found by their name, as Hugging Face names them,
in any folder; images are relative to it."""

_UNREADABLE = (
  EOFError,
  IndexError,
  NotImplementedError,
  OSError,
  OverflowError,
  PIL.Image.DecompressionBombError,
  RuntimeError,
  SyntaxError,
  TypeError,
  ValueError,
  struct.error,
)
"""What Pillow raises on files that it cannot open."""

Texts = Mapping[str, Sequence[str]]
"""The captions of images, by path relative to the folder."""


@dataclasses.dataclass(frozen=True)
class Index:
  """The images of a folder and their captions.

  Attributes:
    folder: The folder.
    texts: The captions of each image that is taken, in order of the paths.
    origin: Where the captions come from, for messages.
    left_out: For each reason, the images that are not taken.
  """

  folder: pathlib.Path
  texts: Texts
  origin: str
  left_out: Mapping[str, Sequence[str]]

  def write(self, out: pathlib.Path) -> None:
    """Writes one line per image, with paths relative to the file's folder."""
    folder = out.absolute().parent
    lines = []
    for path, texts in self.texts.items():
      image = os.path.relpath(self.folder.absolute() / path, folder)
      text = texts[0] if len(texts) == 1 else [*texts]
      line = {'image': pathlib.PurePath(image).as_posix(), 'text': text}
      lines.append(json.dumps(line, ensure_ascii=False) + '\n')
    write_whole(out, ''.join(lines).encode())


def check_out(
  out: pathlib.Path,
  folder: pathlib.Path,
  table: pathlib.Path | None,
  force: bool,
) -> None:
  """Rejects output files that exist or cannot be written.

  Args:
    out: The file to write.
    folder: The images.
    table: The table of captions, if one is given.
    force: Whether another file may be replaced.

  Raises:
    UserError: The reason.
  """
  exists = os.path.exists(out)  # False also for a name that cannot be.
  if table is not None and exists and _is_same(out, table):
    raise UserError(f'--out={out} is the table itself; give another file')
  if os.path.isdir(out):
    raise UserError(f'--out={out} is a folder; give a file')
  if exists and not force:
    raise UserError(
      f'{out} exists; give another file by --out, or --force to replace it'
    )
  if os.path.isdir(folder) and not os.path.isdir(out.absolute().parent):
    raise UserError(
      f'--out={out}: the folder {out.absolute().parent} does not exist'
    )


def make_index(
  folder: pathlib.Path, table: pathlib.Path | None = None
) -> Index:
  """Finds the images of a folder, and their captions.

  Captions come from the table, if one is given; else from tables that are in
  the folder, see TABLES; else from text files beside the images, if any image
  has one; else from the names of the images. Images without a caption, and
  those that cannot be read, are left out.

  Args:
    folder: The folder; images may lie in folders inside it.
    table: A table of captions, see `captions.read_table`. Its paths are
      relative to the folder, or to the table.

  Raises:
    UserError: No image is left, or a table is wrong.
  """
  if not os.path.isdir(folder):
    raise UserError(f'{folder} is not a folder on this machine')
  files = _walk(folder)
  images = [path for path in files if path.lower().endswith(SUFFIXES)]
  if not images:
    raise UserError(
      f'{folder} has no images; their names end in {", ".join(SUFFIXES)}'
    )
  left_out: dict[str, list[str]] = collections.defaultdict(list)
  found, origin = _captions(folder, files, images, table, left_out)
  texts = {}
  for path in track(images, 'images opened'):
    if not _is_unicode(path):
      left_out['a name that is not Unicode'].append(ascii(path))
    elif not _is_readable(folder / path):
      left_out['no image that Pillow can read'].append(path)
    elif not found.get(path):
      left_out['without a text'].append(path)
    else:
      texts[path] = found[path]
  return Index(folder, texts, origin, left_out)


def _is_same(one: pathlib.Path, other: pathlib.Path) -> bool:
  return os.path.exists(other) and os.path.samefile(one, other)


def _walk(folder: pathlib.Path) -> list[str]:
  """The files of a folder and those inside it, in order of their paths.

  Names that begin with a dot are passed over. Links to folders are followed,
  but to no folder twice.
  """
  found, seen = [], {os.path.realpath(folder)}

  def refuse(error: OSError) -> None:
    raise UserError(f'cannot read {error.filename}: {error.strerror}')

  for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    for name in [*folders]:
      real = os.path.realpath(os.path.join(root, name))
      if real in seen:
        folders.remove(name)
      seen.add(real)
    for name in names:
      file = pathlib.Path(root, name)
      # Reports images that are not files; skips other entries.
      is_file = name.lower().endswith(SUFFIXES) or os.path.isfile(file)
      if not name.startswith('.') and is_file:
        found.append(file.relative_to(folder).as_posix())
  return sorted(found)


def _captions(
  folder: pathlib.Path,
  files: Sequence[str],
  images: Sequence[str],
  table: pathlib.Path | None,
  left_out: dict[str, list[str]],
) -> tuple[Texts, str]:
  """Captions and their origin."""
  if table is not None:
    return _from_tables(folder, images, {table: folder}, left_out), str(table)
  tables = {
    folder / path: (folder / path).parent
    for path in files
    if pathlib.PurePath(path).name.casefold() in TABLES
  }
  if tables:
    origin = ', '.join(str(file) for file in tables)
    return _from_tables(folder, images, tables, left_out), origin
  sidecars = {
    path[: -len('.txt')]: folder / path
    for path in files
    if path.lower().endswith('.txt')
  }
  beside = {
    path: sidecars[stem]
    for path in images
    if (stem := path[: path.rindex('.')]) in sidecars
  }
  if beside:
    texts = {p: captions.from_sidecar(file) for p, file in beside.items()}
    return texts, 'the text files beside the images'
  names = {
    path: captions.clean([captions.from_name(path)])
    for path in images
    if _is_unicode(path)
  }
  return names, 'the names of the files'


def _from_tables(
  folder: pathlib.Path,
  images: Sequence[str],
  tables: Mapping[pathlib.Path, pathlib.Path],
  left_out: dict[str, list[str]],
) -> Texts:
  """Reads the captions of tables, one per folder."""
  known = {captions.normal_path(path): path for path in images}
  texts: dict[str, list[str]] = collections.defaultdict(list)
  for table, start in tables.items():
    for image, own, place in captions.read_table(table):
      path = next(
        (p for p in _spellings(folder, start, table, image) if p in known), None
      )
      if path is None:
        left_out['not an image of the folder'].append(f'{image!r} ({place})')
      else:
        texts[known[path]] += own
  return {path: captions.clean(own) for path, own in texts.items()}


def _spellings(
  folder: pathlib.Path, start: pathlib.Path, table: pathlib.Path, image: str
) -> Iterator[str]:
  """What a table may mean by a path, relative to the folder."""
  for name in (image, image.replace('\\', '/')):
    for root in (start, table.parent):
      path = os.path.join(root.absolute(), name)
      yield captions.normal_path(os.path.relpath(path, folder.absolute()))


def _is_unicode(path: str) -> bool:
  """Whether a JSON file can hold a path."""
  try:
    path.encode()
  except UnicodeEncodeError:
    return False
  return True


def _is_readable(file: pathlib.Path) -> bool:
  """Whether Pillow can open an image; its pixels are not looked at.

  Raises:
    UserError: It is a Git LFS pointer.
  """
  if not os.path.isfile(file):
    return False
  try:
    lfs.check_file(file)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Of large images, and odd metadata.
      with PIL.Image.open(file, formats=images.formats()) as image:
        return min(image.size) > 0
  except _UNREADABLE:
    return False
