"""config.json of transformers and diffusers, to our configs and back.

Defaults are those of transformers' configuration_gemma*.py and
configuration_siglip.py, which files on the Hub leave out, and of diffusers'
autoencoder_kl.py.
"""

from collections.abc import Mapping
from typing import Any

from unifluid_jax.convert.layouts.layout import ENCODER, GEMMA, VAE
from unifluid_jax.convert.shapes import Config
from unifluid_jax.errors import UserError
from unifluid_jax.models.gemma import GLOBAL, LOCAL, GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.vae import VAEConfig

Json = Mapping[str, Any]

_KINDS = {'sliding_attention': LOCAL, 'full_attention': GLOBAL}
_DOWN = {False: 'DownEncoderBlock2D', True: 'AttnDownEncoderBlock2D'}
_UP = 'UpDecoderBlock2D'

_GEMMA_DEFAULTS: dict[str, dict[str, Any]] = {
  'gemma': {
    'vocab_size': 256_000,
    'hidden_size': 3072,
    'intermediate_size': 24_576,
    'num_hidden_layers': 28,
    'num_attention_heads': 16,
    'num_key_value_heads': 16,
  },
  'gemma2': {
    'vocab_size': 256_000,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'attn_logit_softcapping': 50.0,
    'final_logit_softcapping': 30.0,
  },
  'gemma3_text': {
    'vocab_size': 262_208,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'rope_theta': 1_000_000.0,
  },
}
_SIGLIP_DEFAULTS = {
  'hidden_size': 768,
  'intermediate_size': 3072,
  'num_hidden_layers': 12,
  'num_attention_heads': 12,
  'image_size': 224,
  'patch_size': 16,
}


def from_json(config: Json, file: str) -> dict[str, Config]:
  """The config of each part of the model that a config.json describes.

  Args:
    config: The file's content.
    file: What messages call it.

  Raises:
    UserError: It asks for something that our models do not do.
  """
  kind = config.get('model_type', '')
  if config.get('_class_name') == 'AutoencoderKL':
    return {VAE: _vae(config, file)}
  if kind in _GEMMA_DEFAULTS:
    return {GEMMA: _gemma(config, file)}
  if kind == 'siglip_vision_model':
    return {ENCODER: _siglip(config, file)}
  if kind in ('paligemma', 'gemma3', 'siglip'):
    parts: dict[str, Config] = {
      ENCODER: _siglip(config.get('vision_config', {}), file)
    }
    text = config.get('text_config', {})
    if kind != 'siglip':
      default = 'gemma' if kind == 'paligemma' else 'gemma3_text'
      parts[GEMMA] = _gemma({'model_type': default, **text}, file)
    return parts
  raise UserError(
    f'{file} is of the unknown model {kind or config.get("_class_name")!r}; '
    f'known are {", ".join(_GEMMA_DEFAULTS)}, paligemma, gemma3, siglip, '
    'siglip_vision_model and AutoencoderKL'
  )


def _gemma(given: Json, file: str) -> GemmaConfig:
  kind = given['model_type']
  if kind not in _GEMMA_DEFAULTS:
    raise UserError(f'{file} has the text model {kind!r}, which is not Gemma')
  config = {'head_dim': 256, **_GEMMA_DEFAULTS[kind], **given}
  if config.get('attention_bias'):
    raise UserError(f'{file} has attention_bias, which no Gemma of ours has')
  layers = config['num_hidden_layers']
  kinds = _layer_kinds(config, kind, layers)
  theta, local_theta, scaling = _rope(config, file)
  head_dim = config['head_dim']
  scalar = config.get('query_pre_attn_scalar', 256)
  if kind == 'gemma' or scalar == head_dim:
    scalar = None
  return GemmaConfig(
    vocab_size=config['vocab_size'],
    width=config['hidden_size'],
    layers=layers,
    heads=config['num_attention_heads'],
    kv_heads=config['num_key_value_heads'],
    head_dim=head_dim,
    mlp_dim=config['intermediate_size'],
    attention_softcap=config.get('attn_logit_softcapping'),
    final_softcap=config.get('final_logit_softcapping'),
    post_norms=kind != 'gemma',
    qk_norm=kind == 'gemma3_text',
    query_scale=None if scalar is None else scalar**-0.5,
    pattern=_period(kinds),
    window=config.get('sliding_window', 4096) if LOCAL in kinds else None,
    rope_theta=theta,
    local_rope_theta=local_theta if LOCAL in kinds else theta,
    rope_scaling=scaling,
    norm_eps=config.get('rms_norm_eps', 1e-6),
  )


def _layer_kinds(config: Json, kind: str, layers: int) -> tuple[str, ...]:
  if kind == 'gemma':
    return (GLOBAL,) * layers
  if config.get('layer_types'):
    return tuple(_KINDS[name] for name in config['layer_types'])
  default = 2 if kind == 'gemma2' else 6
  period = config.get('sliding_window_pattern') or default
  return tuple(
    LOCAL if (layer + 1) % period else GLOBAL for layer in range(layers)
  )


def _period(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """The shortest pattern that repeats to these layers."""
  for length in range(1, len(kinds)):
    if all(k == kinds[i % length] for i, k in enumerate(kinds)):
      return kinds[:length]
  return kinds


def _rope(config: Json, file: str) -> tuple[float, float, float]:
  """Bases of global and local layers, and the scaling of global ones."""
  parameters: Json = config.get('rope_parameters') or {}
  full: Json = parameters.get('full_attention', parameters)
  local: Json = parameters.get('sliding_attention', full)
  scaling: Json = full or config.get('rope_scaling') or {}
  kind = scaling.get('rope_type', scaling.get('type', 'default'))
  if kind not in ('default', 'linear'):
    raise UserError(f'{file} has RoPE of the type {kind!r}; linear is known')
  theta = full.get('rope_theta', config.get('rope_theta', 10_000.0))
  is_split = config['model_type'] == 'gemma3_text'
  other = config.get('rope_local_base_freq', 10_000.0) if is_split else theta
  factor = scaling.get('factor', 1.0) if kind == 'linear' else 1.0
  return float(theta), float(local.get('rope_theta', other)), float(factor)


def _siglip(given: Json, file: str) -> SiglipConfig:
  config = {**_SIGLIP_DEFAULTS, **given}
  if config.get('model_type', 'siglip_vision_model') != 'siglip_vision_model':
    raise UserError(
      f'{file} has the image encoder {config["model_type"]!r}, which is not '
      'SigLIP'
    )
  return SiglipConfig(
    image_size=config['image_size'],
    patch_size=config['patch_size'],
    width=config['hidden_size'],
    layers=config['num_hidden_layers'],
    heads=config['num_attention_heads'],
    mlp_dim=config['intermediate_size'],
    norm_eps=config.get('layer_norm_eps', 1e-6),
  )


def _vae(config: Json, file: str) -> VAEConfig:
  widths = tuple(config['block_out_channels'])
  down = config.get('down_block_types', [_DOWN[False]] * len(widths))
  up = config.get('up_block_types', [_UP] * len(widths))
  convs = {
    config.get(f'use_{name}', True)
    for name in ('quant_conv', 'post_quant_conv')
  }
  strange = ({*down} - {*_DOWN.values()}) | ({*up} - {_UP})
  if strange or len(convs) > 1 or config.get('act_fn', 'silu') != 'silu':
    raise UserError(
      f'{file} asks for {", ".join(strange) or "one quant_conv or act_fn"}, '
      'which our autoencoder does not have'
    )
  blocks = config.get('layers_per_block', 1)
  return VAEConfig(
    latent_channels=config.get('latent_channels', 4),
    widths=widths,
    encoder_blocks=blocks,
    decoder_blocks=blocks + 1,
    groups=config.get('norm_num_groups', 32),
    mid_attention=config.get('mid_block_add_attention', True),
    attention_levels=tuple(
      level for level, kind in enumerate(down) if kind == _DOWN[True]
    ),
    quant_convs=convs.pop(),
    latent_shift=float(config.get('shift_factor') or 0.0),
    latent_scale=1 / float(config.get('scaling_factor') or 0.18215),
  )


def gemma_json(config: GemmaConfig, dtype: str) -> dict[str, Any]:
  """config.json of Gemma{,2,3}ForCausalLM."""
  names = {
    False: ('GemmaForCausalLM', 'gemma'),
    True: ('Gemma2ForCausalLM', 'gemma2'),
  }
  architecture, kind = names[config.post_norms]
  if config.qk_norm:
    architecture, kind = 'Gemma3ForCausalLM', 'gemma3_text'
  scale = config.query_scale or config.head_dim**-0.5
  result: dict[str, Any] = {
    'architectures': [architecture],
    'model_type': kind,
    'dtype': dtype,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_act': 'gelu_pytorch_tanh',
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': True,
    'attention_bias': False,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'bos_token_id': 2,
    'rope_parameters': {
      'rope_type': 'default',
      'rope_theta': config.rope_theta,
    },
  }
  if not config.post_norms:
    return _plain(config, kind, result)
  result |= {
    'query_pre_attn_scalar': _whole(scale**-2),
    'attn_logit_softcapping': config.attention_softcap,
    'final_logit_softcapping': config.final_softcap,
    'sliding_window': config.window or 4096,
    'layer_types': [
      {local: name for name, local in _KINDS.items()}[k]
      for k in config.layer_kinds
    ],
  }
  if not config.qk_norm:
    return _plain(config, kind, result)
  linear = {'rope_type': 'linear', 'factor': config.rope_scaling}
  default = {'rope_type': 'default'}
  result['rope_parameters'] = {
    'full_attention': {
      **(linear if config.rope_scaling != 1 else default),
      'rope_theta': config.rope_theta,
    },
    'sliding_attention': {**default, 'rope_theta': config.local_rope_theta},
  }
  return result


def _plain(config: GemmaConfig, kind: str, result: Json) -> dict[str, Any]:
  """Makes sure that a Gemma 1 or 2 has nothing of Gemma 3."""
  capped = config.attention_softcap or config.final_softcap
  if config.rope_scaling != 1 or (kind == 'gemma' and capped):
    raise UserError(
      f'this model is no {kind} of transformers: it has rope_scaling '
      f'{config.rope_scaling}, soft-caps {config.attention_softcap} and '
      f'{config.final_softcap}'
    )
  return dict(result)


def _whole(value: float) -> float:
  """transformers wants an int where the value is one."""
  return round(value) if abs(value - round(value)) < 1e-6 else value


def siglip_json(config: SiglipConfig, dtype: str) -> dict[str, Any]:
  """config.json of SiglipVisionModel, without its pooling head."""
  return {
    'architectures': ['SiglipVisionModel'],
    'model_type': 'siglip_vision_model',
    'dtype': dtype,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_channels': 3,
    'image_size': config.image_size,
    'patch_size': config.patch_size,
    'hidden_act': 'gelu_pytorch_tanh',
    'layer_norm_eps': config.norm_eps,
    'vision_use_head': False,
  }


def vae_json(
  config: VAEConfig, shift: list[float], scale: list[float]
) -> dict[str, Any]:
  """config.json of AutoencoderKL.

  Args:
    config: Shape of the autoencoder.
    shift: Shift of the latents, by channel.
    scale: Scale of the latents, by channel.

  Raises:
    UserError: It has something that diffusers' model has not.
  """
  blocks = config.encoder_blocks
  if (
    config.patch_size != 1 or config.decoder_blocks != blocks + 1 or not blocks
  ):
    raise UserError(
      f'AutoencoderKL has no patch stem and one more residual block in the '
      f'decoder; this VAE has patches of {config.patch_size}, {blocks} and '
      f'{config.decoder_blocks} blocks. Export it with --to=unifluid'
    )
  levels = range(len(config.widths))
  result: dict[str, Any] = {
    '_class_name': 'AutoencoderKL',
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
    'scaling_factor': 1.0,
  }
  if len({*shift}) == len({*scale}) == 1:
    # As our config says it, which is not rounded to float32.
    exact = 1 / config.latent_scale
    close = abs(1 / scale[0] - exact) < 1e-6 * exact
    result['scaling_factor'] = exact if close else 1 / scale[0]
    result['shift_factor'] = shift[0] or None
  else:
    result |= {'latents_mean': shift, 'latents_std': scale}
  return result
