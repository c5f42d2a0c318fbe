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
        experiment: the whole config, where this is a whole UniFluid
        source: where the weights come from: path, files, their SHA-256
        checksums: SHA-256 of each tensor's bytes
    tokenizer.model, README.md
        The vocabulary and the model card of a whole UniFluid.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from unifluid_jax.config import build
from unifluid_jax.convert.layouts.layout import ENCODER, GEMMA, VAE, Layout
from unifluid_jax.convert.shapes import Config
from unifluid_jax.errors import UserError
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.vae import VAEConfig

FORMAT, VERSION = 'unifluid_jax', 1
CONFIG_FILE = 'config.json'
CARRIED = 'carried/'

_CONFIGS: dict[str, Any] = {
  GEMMA: GemmaConfig,
  ENCODER: SiglipConfig,
  VAE: VAEConfig,
}
LAYOUT = Layout('unifluid_jax', '', '', lambda config, header: [])


def axes(shape: tuple[int, ...]) -> str:
  """The notation of a tensor that is ours as it is."""
  names = ' '.join(f'a{i}' for i in range(len(shape)))
  return f'{names} -> {names}'


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
  """config.json of a folder; nothing where there is none.

  Raises:
    UserError: It is damaged.
  """
  file = pathlib.Path(path) / CONFIG_FILE
  if not file.is_file():
    return {}
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{file} is no JSON ({error})') from error
  return content if isinstance(content, dict) else {}


def read_configs(path: str) -> dict[str, Config]:
  """Configs of the parts in a folder of our layout."""
  metadata = read_metadata(path)
  if metadata.get('version') != VERSION:
    raise UserError(
      f'{path} is of version {metadata.get("version")} of the layout; this '
      f'program knows {VERSION}'
    )
  return {
    part: build(_CONFIGS[part], config, f'{path}.{part}')
    for part, config in metadata['parts'].items()
  }


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
