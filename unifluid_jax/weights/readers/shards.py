"""The index of a sharded checkpoint, and whether its shards agree with it.

transformers and diffusers write the same index, `{"weight_map": {TENSOR:
FILE}}`, for safetensors and for PyTorch files.
"""

import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from absl import logging

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.readers import json_file

SUFFIX = '.index.json'
_NUMBERED = r'-\d+-of-\d+'
# What trainers save beside the weights: settings, optimizer, random states.
_OF_TRAINING = re.compile(
  r'(training_args|optimizer|scheduler|scaler|rng_state|random_states)'
  r'([_-]\w+)*\.(bin|pt|pth|ckpt|safetensors)'
)

Shards = Mapping[str, pathlib.Path]
"""The file of each tensor."""


def is_of_training(file: pathlib.Path) -> bool:
  """Whether a file is one that trainers save beside the weights."""
  return bool(_OF_TRAINING.fullmatch(file.name))


def read_index(index: pathlib.Path) -> Shards:
  """Returns the shard of each tensor; shards are in the index's folder.

  Raises:
    UserError: The index is damaged, or names a file outside its folder.
  """
  content = json_file.read(index)
  shards = content.get('weight_map') if isinstance(content, dict) else None
  if not isinstance(shards, dict) or not shards:
    raise UserError(f'{index} has no weight_map; download it again')
  for name, shard in shards.items():
    if not _is_below(shard):
      raise UserError(
        f'{index} lists {name} in {shard!r}, which is not a file in its '
        'folder; download it again'
      )
  return {name: index.parent / shard for name, shard in shards.items()}


def files_of(index: pathlib.Path, shards: Shards) -> tuple[pathlib.Path, ...]:
  """The files that an index lists.

  A numbered shard that it does not list is refused: one of the two is of
  another checkpoint, and it is unknown which. Other files, such as an adapter,
  are allowed; a warning names them.

  Raises:
    UserError: A file is missing, or a shard is not listed.
  """
  files = tuple(sorted({*shards.values()}))
  for file in files:
    listed = sorted(name for name, shard in shards.items() if shard == file)
    if not file.exists():
      raise UserError(
        f'{file} is missing; {index.name} lists {len(listed)} tensors in '
        f'it, such as {listed[0]}; download it too'
      )
  stem, suffix = _stem_and_suffix(index)
  numbered = re.compile(f'{re.escape(stem)}{_NUMBERED}{re.escape(suffix)}')
  for other in sorted({*index.parent.glob(f'*{suffix}')} - {*files}):
    if numbered.fullmatch(other.name):
      raise UserError(
        f'{other} is not listed in {index.name}; one of them is of another '
        'checkpoint: download the index again, or delete the file'
      )
    if not is_of_training(other):
      logging.warning('%s is not read: %s does not list it', other, index.name)
  return files


def check_listed(
  shards: Shards, file: pathlib.Path, names: Collection[str]
) -> None:
  """Checks that a shard holds the tensors that the index lists in it.

  Args:
    shards: Content of the index.
    file: The shard.
    names: The tensors in the shard.

  Raises:
    UserError: One is missing, belongs into another shard, or is not listed.
  """
  listed = {name for name, shard in shards.items() if shard == file}
  for name in sorted(listed - {*names}):
    raise UserError(
      f'{file} lacks {name}, which the index lists in it; the files are not of '
      'one checkpoint'
    )
  for name in sorted({*names} - listed):
    where = (
      f'lists in {shards[name].name}' if name in shards else 'does not list'
    )
    raise UserError(
      f'{file} holds {name}, which the index {where}; the files are not of '
      'one checkpoint: download them again'
    )


def _stem_and_suffix(index: pathlib.Path) -> tuple[str, str]:
  """('model', '.safetensors') of model.safetensors.index.json."""
  stem, _, suffix = index.name.removesuffix(SUFFIX).rpartition('.')
  return stem, f'.{suffix}'


def _is_below(shard: Any) -> bool:
  path = pathlib.PurePath(shard if isinstance(shard, str) else '')
  return (
    bool(path.name)
    and '\0' not in str(path)
    and not path.is_absolute()
    and '..' not in path.parts
  )
