"""The manifest of a checkpoint: what each of its files must be.

`checksums.json` is written last before a save is committed, so every complete
checkpoint has one. Orbax's own metadata hold `MARK`, which distinguishes
a checkpoint that lost its manifest from one without.

Each process computes the checksums of the arrays that it wrote as soon as it
has written them, into a part of the manifest. Process 0 joins the parts and
adds the other files.
"""

import json
import zlib
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath

from unifluid_jax.utils.paths import AnyPath, write_whole
from unifluid_jax.weights.checksums import Sums, find_changed, measure

MARK = {'checksums': 'checksums.json'}
"""Orbax keeps it with a checkpoint that has a manifest."""

_FILE = 'checksums.json'
_ORBAX_FILE = '_CHECKPOINT_METADATA'
_WRITTEN_LATER = (_FILE, _ORBAX_FILE, 'commit_success.txt')
"""Files of a checkpoint's folder that the manifest cannot hold: Orbax changes
or writes them in the course of the commit. No restore depends on them."""

_SMALL = 2**16
"""Bytes of a file that even a quick check reads."""

Files = dict[str, Sums]
"""By the path in the folder."""


def write_part(folder: epath.Path, process: int) -> None:
  """Writes the checksums of the arrays that a process has written.

  Args:
    folder: The item's folder.
    process: Index of the process.
  """
  own = folder / f'ocdbt.process_{process}'
  names = [f'{own.name}/{name}' for name in _names(own)]
  files = dict(
    zip(names, measure(folder / name for name in names), strict=True)
  )
  (folder / f'checksums.process_{process}.json').write_text(_dump(files))


def write_manifest(folder: epath.Path) -> None:
  """Writes the manifest of a checkpoint whose other files are complete.

  Args:
    folder: The checkpoint's folder, before it is committed.
  """
  files: Files = {}
  for part in folder.glob('*/checksums.process_*.json'):
    known = _parse(part.read_bytes())
    files |= {f'{part.parent.name}/{name}': s for name, s in known.items()}
  others = [name for name in _names(folder) if name not in files]
  others = [name for name in others if name not in _WRITTEN_LATER]
  measured = measure(folder / name for name in others)
  files |= dict(zip(others, measured, strict=True))
  write_whole(folder / _FILE, _dump(files).encode())


def is_old(folder: AnyPath) -> bool:
  """Whether a checkpoint was made before there were manifests."""
  try:
    known = json.loads((folder / _ORBAX_FILE).read_text(encoding='utf-8'))
    is_marked = bool(known.get('custom_metadata'))
  except (OSError, ValueError, AttributeError):
    return False
  return not is_marked and not (folder / _FILE).exists()


def find_damage(
  folder: AnyPath,
  items: Collection[str] = (),
  share: tuple[int, int] = (0, 1),
) -> str | None:
  """Compares a checkpoint with its manifest.

  Small files are read always, of others the size is looked at.

  Args:
    folder: The checkpoint's folder.
    items: Parts of the checkpoint whose large files are read, too.
    share: (i, n): read only the i-th of n shares of those.

  Returns:
    What is wrong, if anything is.
  """
  folder = epath.Path(folder)
  if is_old(folder):
    return _find_damage_of_old(folder)
  try:
    files = _parse((folder / _FILE).read_bytes())
    for name, sums in files.items():
      size = (folder / name).stat().length
      if size != sums.size:
        return f'{name} has {size} bytes instead of {sums.size}'
    small = {name for name, sums in files.items() if sums.size <= _SMALL}
    large = {name for name in files.keys() - small if _item(name) in items}
    changed = find_changed(
      {folder / name: files[name] for name in sorted(small)}
    ) or find_changed(
      {folder / name: files[name] for name in sorted(large)}, share
    )
  except OSError as error:
    return _why(error, folder)
  except (ValueError, KeyError, TypeError, AttributeError):
    return f'{_FILE} is damaged'
  return changed and f'{_relative(changed, folder)} has changed'


def _find_damage_of_old(folder: epath.Path) -> str | None:
  """Finds damage without checksums: invalid JSON."""
  try:
    json.loads((folder / 'identity' / 'metadata').read_bytes())
    metrics = folder / 'metrics' / 'metrics'
    if metrics.exists():
      json.loads(metrics.read_bytes())['loss']
  except OSError as error:
    return _why(error, folder)
  except (ValueError, KeyError, TypeError) as error:
    return f'identity or metrics cannot be read: {error}'
  return None


def _names(folder: epath.Path, prefix: str = '') -> Iterator[str]:
  """Paths of all files below a folder."""
  for path in sorted(folder.iterdir()):
    if path.is_dir():
      yield from _names(path, f'{prefix}{path.name}/')
    else:
      yield f'{prefix}{path.name}'


def _item(name: str) -> str:
  return name.partition('/')[0]


def _why(error: OSError, folder: epath.Path) -> str:
  """E.g. 'state/_METADATA: No such file or directory'."""
  if not error.filename:  # As in a bucket.
    return f'{type(error).__name__}: {error}'
  return f'{_relative(error.filename, folder)}: {error.strerror}'


def _relative(path: Any, folder: epath.Path) -> str:
  return str(path).removeprefix(f'{folder}/')


def _dump(files: Files) -> str:
  return json.dumps({'files': files, 'crc32': _crc32(files)})


def _crc32(files: Files) -> int:
  return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _parse(content: bytes) -> Files:
  """Reads a manifest or a part of one.

  Raises:
    ValueError, KeyError, TypeError, AttributeError: It is damaged.
  """
  found = json.loads(content)
  files = {
    name: Sums(size, tuple(pieces))
    for name, (size, pieces) in found['files'].items()
  }
  if found['crc32'] != _crc32(files):
    raise ValueError('it does not match its own checksum')
  return files
