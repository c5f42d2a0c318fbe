"""Which file of a folder holds its weights, and what a folder without is."""

import pathlib
import re

from unifluid_jax.data.model_file import JSON, conversion
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.readers import shards

SUFFIXES = ('.safetensors', '.npz', '.ckpt', '.bin', '.pth', '.pt')
"""Suffixes of weights, those to prefer first."""

_STEMS = ('model', 'diffusion_pytorch_model', 'pytorch_model')
_NUMBERED = re.compile(r'.*-\d+-of-\d+\.\w+')


def find_weights(folder: pathlib.Path) -> pathlib.Path:
  """The one file of weights in a folder, or the index of its shards.

  Raises:
    UserError: The folder has no checkpoint, or several.
  """
  for suffix in SUFFIXES:
    indexes = sorted(folder.glob(f'*{suffix}{shards.SUFFIX}'))
    if len(indexes) == 1:
      return indexes[0]
    files = [
      file
      for file in sorted(folder.glob(f'*{suffix}'))
      if not shards.is_of_training(file)
    ]
    if files or indexes:
      return _choose(folder, suffix, files, indexes)
  raise UserError(_explain(folder))


def _choose(
  folder: pathlib.Path,
  suffix: str,
  files: list[pathlib.Path],
  indexes: list[pathlib.Path],
) -> pathlib.Path:
  """One of several files of weights."""
  if indexes:
    raise UserError(
      f'{folder} holds several checkpoints, whose indexes are '
      f'{_names(indexes)}; move one of them into a folder of its own'
    )
  by_name = {file.name: file for file in files}
  for stem in _STEMS:
    if f'{stem}{suffix}' in by_name:
      return by_name[f'{stem}{suffix}']
  if any(_NUMBERED.fullmatch(name) for name in by_name):
    raise UserError(
      f'{folder} holds {len(files)} shards ({_names(files)}) and no index '
      f'(*{suffix}{shards.SUFFIX}); download the index too'
    )
  if len(files) > 1:
    raise UserError(
      f'{folder} holds {len(files)} {suffix} files and no index '
      f'(*{suffix}{shards.SUFFIX}): {_names(files)}; name one of them'
    )
  return files[0]


def _explain(folder: pathlib.Path) -> str:
  """What a folder is that holds no weights, and what to name instead."""
  if (folder / 'snapshots').is_dir():
    found = sorted(p for p in (folder / 'snapshots').iterdir() if p.is_dir())
    if found:
      return (
        f'{folder} is a cache of Hugging Face; name its snapshot: '
        f'{" or ".join(map(str, found))}'
      )
    return f'{folder} is a cache of Hugging Face without a snapshot'
  models = sorted(folder.glob('models--*/snapshots/*'))
  if models:
    return (
      f'{folder} is the cache of Hugging Face; name a snapshot in it: '
      f'{" or ".join(map(str, models[:8]))}'
    )
  if (folder / JSON).is_file():
    return (
      f'{folder} holds no weights, only a {JSON}; {conversion(folder / JSON)}'
    )
  return (
    f'{folder} holds no checkpoint: no {", ".join(SUFFIXES)} file of weights '
    'and no Orbax folder; name the file or the folder itself'
  )


def _names(files: list[pathlib.Path]) -> str:
  more = f' and {len(files) - 5} more' if len(files) > 5 else ''
  return ', '.join(file.name for file in files[:5]) + more
