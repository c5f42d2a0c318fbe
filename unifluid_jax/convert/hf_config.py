"""The config.json of transformers and diffusers: what a checkpoint is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from unifluid_jax.convert.configs import autoencoder, gemma, siglip
from unifluid_jax.convert.configs.fields import Fields
from unifluid_jax.convert.layouts.layout import ENCODER, GEMMA, VAE
from unifluid_jax.convert.shapes import Config
from unifluid_jax.errors import UserError

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
  latents: autoencoder.Statistics | None = None
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
  if kind == autoencoder.CLASS:
    return Described(
      {VAE: autoencoder.read(content)}, autoencoder.read_statistics(content)
    )
  tied = fields.one_of('tie_word_embeddings', (True, False), default=True)
  if kind in gemma.MODEL_TYPES:
    return Described({GEMMA: gemma.read(content, kind)}, tied=tied)
  if kind == siglip.MODEL_TYPE:
    return Described({ENCODER: siglip.read(content)})
  if kind not in (*_AROUND, 'siglip'):
    raise UserError(
      f'unknown model {kind!r}; known are {", ".join(gemma.MODEL_TYPES)}, '
      f'{", ".join(_AROUND)}, siglip, {siglip.MODEL_TYPE} and '
      f'{autoencoder.CLASS}'
    )
  parts: dict[str, Config] = {
    ENCODER: siglip.read(fields.get('vision_config', {}))
  }
  if kind in _AROUND:
    text = fields.get('text_config', {})
    config = gemma.read(text, _AROUND[kind])
    if kind == 'gemma3':
      # transformers caps logits in the text model alone, not around it.
      config = dataclasses.replace(config, final_softcap=None)
    parts[GEMMA] = config
  return Described(parts, tied=tied)
