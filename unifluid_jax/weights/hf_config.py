"""The config.json of transformers and diffusers: what a checkpoint is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.configs import (
  autoencoder_config,
  gemma_config,
  siglip_config,
)
from unifluid_jax.weights.configs.fields import Fields
from unifluid_jax.weights.layouts.tensor_layout import ENCODER, GEMMA, VAE
from unifluid_jax.weights.shapes import Config

# The text model in models of images and text, where the file does not say.
_AROUND = {'paligemma': 'gemma', 'gemma3': 'gemma3_text'}


class Described(NamedTuple):
  """What a config.json says.

  Attributes:
    configs: The config of each part of the model.
    latents: Shift and scale of a VAE's latents, where it has them by channel.
    tied: Whether Gemma's text head is its embedding table.
  """

  configs: Mapping[str, Config]
  latents: autoencoder_config.Statistics | None = None
  tied: bool = True


def from_json(content: Any, file: str) -> Described:
  """What a config.json describes.

  Args:
    content: The file's content.
    file: What messages call it.

  Raises:
    UserError: It asks for something that our models do not do.
  """
  try:
    return _describe(content)
  except UserError as error:
    raise UserError(f'{file} cannot be used: {error}') from (error)


def _describe(content: Any) -> Described:
  fields = Fields(content)
  kind = fields.get('model_type', fields.get('_class_name'))
  if kind == autoencoder_config.CLASS:
    return Described(
      {VAE: autoencoder_config.read(content)},
      autoencoder_config.read_statistics(content),
    )
  tied = fields.one_of('tie_word_embeddings', (True, False), default=True)
  if kind in gemma_config.MODEL_TYPES:
    return Described({GEMMA: gemma_config.read(content, kind)}, tied=tied)
  if kind == siglip_config.MODEL_TYPE:
    return Described({ENCODER: siglip_config.read(content)})
  if kind not in (*_AROUND, 'siglip'):
    raise UserError(
      f'unknown model {kind!r}; known are '
      f'{", ".join((*gemma_config.MODEL_TYPES, *_AROUND))}, siglip, '
      f'{siglip_config.MODEL_TYPE} and {autoencoder_config.CLASS}'
    )
  parts: dict[str, Config] = {
    ENCODER: siglip_config.read(fields.get('vision_config', {}))
  }
  if kind in _AROUND:
    text = fields.get('text_config', {})
    config = gemma_config.read(text, _AROUND[kind])
    if kind == 'gemma3':
      # transformers caps logits in the text model alone, not around it.
      config = dataclasses.replace(config, final_softcap=None)
    parts[GEMMA] = config
  return Described(parts, tied=tied)
