"""The KL autoencoder in diffusers' config.json.

Defaults are those of autoencoder_kl.py. Latents are normalized by one number,
(x - shift_factor) * scaling_factor, or channel by channel,
(x - latents_mean) * scaling_factor / latents_std, as pipelines of diffusers do
(pipelines/stable_diffusion_xl).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.configs.fields import Fields, Json

CLASS = 'AutoencoderKL'

_DOWN = {False: 'DownEncoderBlock2D', True: 'AttnDownEncoderBlock2D'}
_UP = 'UpDecoderBlock2D'
_SCALING = 0.18215

Statistics = tuple[Float[np.ndarray, ' Z'], Float[np.ndarray, ' Z']]
"""Shift and scale of the latents, by channel."""


def read(values: Json) -> VAEConfig:
  """The autoencoder that a config.json describes."""
  fields = Fields(
    values,
    {'layers_per_block': 1, 'latent_channels': 4, 'norm_num_groups': 32},
  )
  fields.one_of('act_fn', ('silu', 'swish'), 'silu')
  widths = fields.sizes('block_out_channels')
  down = fields.get('down_block_types', [_DOWN[False]] * len(widths))
  up = fields.get('up_block_types', [_UP] * len(widths))
  for key, kinds, known in (
    ('down_block_types', down, _DOWN.values()),
    ('up_block_types', up, (_UP,)),
  ):
    if not isinstance(kinds, list) or any(k not in known for k in kinds):
      raise fields.wrong(key, f'known here: {", ".join(known)}')
    if len(kinds) != len(widths):
      raise fields.wrong(key, f'block_out_channels has {len(widths)} levels')
  booleans = (True, False)
  quant_convs = fields.one_of('use_quant_conv', booleans, default=True)
  fields.one_of('use_post_quant_conv', (quant_convs,), default=True)
  groups = fields.size('norm_num_groups')
  if any(width % groups for width in widths):
    raise fields.wrong(
      'norm_num_groups', f'it must divide block_out_channels {list(widths)}'
    )
  blocks = fields.count('layers_per_block')
  shift = fields.get('shift_factor', 0)
  if not isinstance(shift, int | float):
    raise fields.wrong('shift_factor', 'it must be a number')
  return VAEConfig(
    latent_channels=fields.size('latent_channels'),
    widths=widths,
    encoder_blocks=blocks,
    decoder_blocks=blocks + 1,
    groups=groups,
    mid_attention=fields.one_of(
      'mid_block_add_attention', booleans, default=True
    ),
    attention_levels=tuple(
      level for level, kind in enumerate(down) if kind == _DOWN[True]
    ),
    quant_convs=quant_convs,
    latent_shift=float(shift),
    latent_scale=1 / fields.number('scaling_factor', _SCALING),
  )


def read_statistics(values: Json) -> Statistics | None:
  """Returns shift and scale of each channel, if a config.json has them."""
  fields = Fields(values, {'latent_channels': 4})
  keys = ('latents_mean', 'latents_std')
  if all(fields.get(key) is None for key in keys):
    return None
  channels = fields.size('latent_channels')
  mean, std = (fields.numbers(key, channels) for key in keys)
  if min(std) <= 0:
    raise fields.wrong('latents_std', 'it must be above 0')
  scaling = fields.number('scaling_factor', _SCALING)
  return (
    np.asarray(mean, np.float32),
    (np.asarray(std) / scaling).astype(np.float32),
  )


def write(config: VAEConfig, statistics: Statistics) -> dict[str, Any]:
  """config.json of AutoencoderKL.

  Args:
    config: Shape of the autoencoder.
    statistics: Shift and scale of the latents. Those that are not the
      config's, because they were measured, are written by channel.

  Raises:
    UserError: It has something that diffusers' model has not.
  """
  blocks = config.encoder_blocks
  if (
    config.patch_size != 1
    or config.shortcuts
    or config.decoder_blocks != blocks + 1
    or not blocks
  ):
    raise UserError(
      'AutoencoderKL has no patch stem, no shortcuts and one more residual '
      f'block in the decoder; this VAE has patches of {config.patch_size}, '
      f'shortcuts {config.shortcuts}, {blocks} and {config.decoder_blocks} '
      'blocks. Export it with --to=unifluid'
    )
  levels = range(len(config.widths))
  result: dict[str, Any] = {
    '_class_name': CLASS,
    'in_channels': 3,
    'out_channels': 3,
    'down_block_types': [_DOWN[i in config.attention_levels] for i in levels],
    'up_block_types': [_UP for _ in levels],
    'block_out_channels': list(config.widths),
    'layers_per_block': blocks,
    'act_fn': 'silu',
    'latent_channels': config.latent_channels,
    'norm_num_groups': config.groups,
    'mid_block_add_attention': config.mid_attention,
    'use_quant_conv': config.quant_convs,
    'use_post_quant_conv': config.quant_convs,
  }
  shift, scale = statistics
  initial = (config.latent_shift, config.latent_scale)
  if all(
    (found == np.float32(value)).all()
    for found, value in zip((shift, scale), initial, strict=True)
  ):
    return result | {
      'scaling_factor': 1 / config.latent_scale,
      'shift_factor': config.latent_shift or None,
    }
  return result | {
    'scaling_factor': 1.0,
    'latents_mean': shift.tolist(),
    'latents_std': scale.tolist(),
  }
