"""Names of the KL autoencoder: diffusers' new and old ones, and LDM's.

Sources: huggingface/diffusers, models/autoencoders/vae.py and the renaming in
models/modeling_utils.py; CompVis/latent-diffusion, whose names LTH14/mar,
models/vae.py keeps. Their tables are substitutions in our names.
"""

import re

from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.weights.layouts.tensor_layout import (
  VAE,
  Config,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.rules import Rule
from unifluid_jax.weights.shapes import shapes

STATISTICS = ('shift', 'scale')
"""Ours that no file holds as a tensor: they come from the config."""

Substitutions = tuple[tuple[str, str], ...]

_LEAVES: Substitutions = (
  (r'/(kernel|scale)$', '.weight'),
  (r'/', '.'),
)
_DIFFUSERS: Substitutions = (
  (r'(encoder/levels/\d+)/conv/', r'\1/downsamplers/0/conv/'),
  (r'(decoder/levels/\d+)/conv/', r'\1/upsamplers/0/conv/'),
  (r'encoder/levels', 'encoder/down_blocks'),
  (r'decoder/levels', 'decoder/up_blocks'),
  (r'/blocks/', '/resnets/'),
  (r'mid/block1', 'mid_block/resnets/0'),
  (r'mid/block2', 'mid_block/resnets/1'),
  (r'mid/attention', 'mid_block/attentions/0'),
  (r'(attentions/\d+)/norm/', r'\1/group_norm/'),
  (r'norm_out', 'conv_norm_out'),
  (r'shortcut', 'conv_shortcut'),
)
_NEW_ATTENTION: Substitutions = (
  (r'(attentions/\d+)/query/', r'\1/to_q/'),
  (r'(attentions/\d+)/key/', r'\1/to_k/'),
  (r'(attentions/\d+)/value/', r'\1/to_v/'),
  (r'(attentions/\d+)/out/', r'\1/to_out/0/'),
)
_OLD_ATTENTION: Substitutions = ((r'(attentions/\d+)/out/', r'\1/proj_attn/'),)
_LDM: Substitutions = (
  (r'mid/attention/', 'mid/attentions/1/'),
  (r'(attentions/\d+)/query/', r'\1/q/'),
  (r'(attentions/\d+)/key/', r'\1/k/'),
  (r'(attentions/\d+)/value/', r'\1/v/'),
  (r'(attentions/\d+)/out/', r'\1/proj_out/'),
  (r'mid/attentions/1', 'mid/attn_1'),
  (r'mid/block(\d)', r'mid/block_\1'),
  (r'(encoder/levels/\d+)/conv/', r'\1/downsample/conv/'),
  (r'(decoder/levels/\d+)/conv/', r'\1/upsample/conv/'),
  (r'encoder/levels', 'encoder/down'),
  (r'decoder/levels', 'decoder/up'),
  (r'/blocks/', '/block/'),
  (r'/attentions/', '/attn/'),
  (r'shortcut', 'nin_shortcut'),
)


def _rename(name: str, *tables: Substitutions) -> str:
  for table in tables:
    for ours, theirs in table:
      name = re.sub(ours, theirs, name)
  return name


def _axes(name: str, theirs: str, header: Header) -> str:
  if not name.endswith('/kernel'):
    return 'o -> o'
  if theirs in header and len(header[theirs].shape) == 4:
    return 'o i p q -> p q i o'
  # Attention is made of linear layers in diffusers, 1x1 kernels in LDM.
  is_linear = re.search(r'attention(s/\d+)?/(query|key|value|out)/', name)
  return 'o i -> 0 0 i o' if is_linear else 'o i p q -> p q i o'


def _diffusers(config: Config, header: Header) -> list[Rule]:
  old = any(re.search(r'\.attentions\.\d+\.query\.', name) for name in header)
  attention = _OLD_ATTENTION if old else _NEW_ATTENTION
  rules = []
  for name in shapes(config):
    if name not in STATISTICS:
      theirs = _rename(name, _DIFFUSERS, attention, _LEAVES)
      rules.append(Rule(name, theirs, _axes(name, theirs, header)))
  return rules


def _ldm(config: Config, header: Header) -> list[Rule]:
  last = len(config.widths) - 1

  def mirrored(name: str) -> str:
    return re.sub(
      r'decoder/levels/(\d+)',
      lambda match: f'decoder/levels/{last - int(match[1])}',
      name,
    )

  rules = []
  for name in shapes(config):
    if name not in STATISTICS:
      theirs = _rename(mirrored(name), _LDM, _LEAVES)
      rules.append(Rule(name, theirs, _axes(name, theirs, header)))
  return rules


def _infer_ldm(header: Header) -> VAEConfig:
  """Config from shapes; the latents' scale is not among them."""

  def count(pattern: str) -> int:
    found = (re.match(pattern, name) for name in header)
    return len({match[1] for match in found if match})

  levels = count(r'encoder\.down\.(\d+)\.')
  return VAEConfig(
    latent_channels=header['decoder.conv_in.weight'].shape[1],
    widths=tuple(
      header[f'encoder.down.{level}.block.0.conv2.weight'].shape[0]
      for level in range(levels)
    ),
    encoder_blocks=count(r'encoder\.down\.0\.block\.(\d+)\.'),
    decoder_blocks=count(r'decoder\.up\.0\.block\.(\d+)\.'),
    mid_attention='encoder.mid.attn_1.q.weight' in header,
    attention_levels=tuple(
      level
      for level in range(levels)
      if f'encoder.down.{level}.attn.0.q.weight' in header
    ),
    quant_convs='quant_conv.weight' in header,
  )


DIFFUSERS_LAYOUT = TensorLayout(
  'AutoencoderKL of diffusers',
  VAE,
  'decoder.conv_in.weight',
  _diffusers,
  marks='decoder.conv_norm_out.weight',
  described=True,
)
LDM_LAYOUT = TensorLayout(
  'autoencoder of LDM',
  VAE,
  'decoder.conv_in.weight',
  _ldm,
  # The perceptual loss and the discriminator it was trained with.
  unused=(r'^loss\.', r'^model_ema\.'),
  marks='decoder.norm_out.weight',
  infer=_infer_ldm,
)
