"""Our own layout of files: safetensors with our names, and what they are.

A folder holds

    model.safetensors, or shards and model.safetensors.index.json
        Our parameters by UniFluid's names: 'gemma/...', 'encoder/...',
        'connector', 'head/...' and so on; the VAE's as 'vae/...'. Layers are
        stacked on the first axis. A part may be alone in a file. Foreign
        tensors that our model has no place for, such as SigLIP's pooling
        head, are kept as 'carried/PART/NAME'.
    config.json
        format: 'unifluid_jax'; version: 1
        parts: config of each part, as the dataclasses of `models` have it
        experiment: the whole config, if all parts of a UniFluid are here
        step: training steps; null if unknown
        source: where the weights come from: path, files, their SHA-256
        checksums: SHA-256 of each tensor's bytes
    tokenizer.model, README.md
        The vocabulary and the model card of a whole UniFluid.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unifluid_jax.config.builder import build
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.configs.fields import LARGEST, MOST_LAYERS
from unifluid_jax.weights.layouts.tensor_layout import (
  ENCODER,
  GEMMA,
  VAE,
  TensorLayout,
)
from unifluid_jax.weights.parts import Part, as_it_is
from unifluid_jax.weights.problems import describe_misfits
from unifluid_jax.weights.readers import json_file
from unifluid_jax.weights.readers.dtypes import WEIGHTS
from unifluid_jax.weights.readers.reader import Reader
from unifluid_jax.weights.shapes import Config, shapes

FORMAT, VERSION = 'unifluid_jax', 1
CONFIG_FILE = 'config.json'
CARRIED = 'carried/'

_CONFIGS: dict[str, Any] = {
  GEMMA: GemmaConfig,
  ENCODER: SiglipConfig,
  VAE: VAEConfig,
}
LAYOUT = TensorLayout('unifluid_jax', '', '', lambda config, header: [])


def part_of(name: str) -> str:
  """The part that a tensor belongs to, by its name."""
  first = name.removeprefix(CARRIED).split('/')[0]
  return first.removesuffix('_bias')


def carried_name(name: str) -> str | None:
  """The foreign name of a tensor that is only carried along."""
  if not name.startswith(CARRIED):
    return None
  return name.removeprefix(CARRIED).split('/', 1)[1]


def is_own(path: str) -> bool:
  """Whether a folder is of our layout."""
  return read_metadata(path).get('format') == FORMAT


def read_metadata(path: str) -> dict[str, Any]:
  """Reads the config.json of a folder; empty without one.

  Raises:
    UserError: It is damaged, or of another version.
  """
  file = pathlib.Path(path) / CONFIG_FILE
  content = json_file.read_if_there(file)
  if not isinstance(content, dict) or content.get('format') != FORMAT:
    return {}
  if content.get('version') != VERSION:
    raise UserError(
      f'{path} is of version {content.get("version")} of the layout; this '
      f'program knows {VERSION}'
    )
  for key in ('parts', 'checksums', 'prefixes', 'source'):
    if not isinstance(content.get(key), dict):
      raise UserError(
        f'{file} is damaged: {key} is not an object; copy it again'
      )
  return content


def read_parts(
  path: str, reader: Reader, wanted: Sequence[str] | None
) -> dict[str, Part]:
  """The parts in a folder of our layout.

  Args:
    path: The folder.
    reader: Its tensors.
    wanted: Parts to take; None for all.

  Raises:
    UserError: A part or a tensor is missing, or of another shape.
  """
  configs = _read_configs(path)
  parts: dict[str, Part] = {}
  for name, tensor in reader.header.items():
    name_of_part = part_of(name)
    if wanted is not None and name_of_part not in wanted:
      continue
    part = parts.setdefault(
      name_of_part, Part(LAYOUT, '', configs.get(name_of_part), (), {}, {})
    )
    if tensor.dtype not in WEIGHTS:
      raise UserError(
        f'{name} in {tensor.file} is of dtype {tensor.dtype}; weights are '
        f'{", ".join(WEIGHTS)}'
      )
    array = as_it_is(name, tensor, reader.read)
    carried = carried_name(name)
    if carried is None:
      part.arrays[name] = array
    else:
      part.carried[carried] = array
  absent = [part for part in wanted or () if part not in parts]
  if absent:
    raise UserError(f'{path} holds no {" and no ".join(absent)}')
  written = read_metadata(path)['checksums'].keys()
  problems = [
    f'{name} is missing'
    for name in sorted(written - reader.header.keys())
    if wanted is None or part_of(name) in wanted
  ]
  problems = problems or _shape_problems(parts)
  if problems:
    raise UserError(describe_misfits(path, problems))
  return parts


def _read_configs(path: str) -> dict[str, Config]:
  """Configs of the parts in a folder of our layout."""
  configs = {}
  for part, config in read_metadata(path)['parts'].items():
    where = f'{path}.{part}'
    if part not in _CONFIGS or not isinstance(config, dict):
      raise UserError(f'{where} is not a part of a model; copy {path} again')
    try:
      _check_numbers(config)
      configs[part] = build(_CONFIGS[part], config, where)
      shapes(configs[part])
    except (ArithmeticError, TypeError, ValueError) as error:
      raise UserError(
        f'{where} is not a shape of a model ({error}); copy {path} again'
      ) from error
  return configs


def _check_numbers(config: Mapping[str, Any]) -> None:
  """Rejects numbers that no model has.

  Raises:
    ValueError: A size is absurdly large, or a number is not finite.
  """
  for key, value in config.items():
    is_count = key == 'layers' or key.endswith('_blocks')
    most = MOST_LAYERS if is_count else LARGEST
    for number in value if isinstance(value, list) else [value]:
      is_wrong = isinstance(number, int) and abs(number) > most
      if is_wrong or (isinstance(number, float) and not math.isfinite(number)):
        raise ValueError(f'{key} is {str(number)[:50]}')


def _shape_problems(parts: Mapping[str, Part]) -> list[str]:
  """Lists missing tensors and shapes that differ, of parts with a config."""
  problems = []
  for name, part in parts.items():
    if part.config is None:
      continue
    for our_name, shape in shapes(part.config).items():
      array = part.arrays.get(f'{name}/{our_name}')
      if array is None:
        problems.append(f'{name}/{our_name} is missing')
      elif array.shape != shape:
        problems.append(
          f'{name}/{our_name} is {list(array.shape)} where {list(shape)} is '
          'wanted'
        )
  return problems


def describe(configs: Mapping[str, Config], **more: Any) -> dict[str, Any]:
  """The content of config.json.

  Args:
    configs: Config of each part.
    **more: What else it says.
  """
  return {
    'format': FORMAT,
    'version': VERSION,
    'parts': {
      part: dataclasses.asdict(config) for part, config in configs.items()
    },
    **more,
  }
