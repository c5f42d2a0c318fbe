"""Gemma's official Flax names, and big_vision's with stacked layers.

Sources: google-deepmind/gemma, gm/nn/_modules.py (names, shapes) and
gm/ckpts/_compat.py (flat and nested trees, which differ in a 'w' after the
MLP's names); google-research/big_vision, models/ppp/gemma.py.
"""

import dataclasses

from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.sizes import GEMMA_SIZES
from unifluid_jax.weights.layouts.tensor_layout import (
  GEMMA,
  Config,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.rules import Rule

# The official tables of Gemma 1 and 2 have rows that no token uses.
_PADDED, _VOCAB = 256_128, 256_000


def _block_rules(
  config: GemmaConfig, header: Header, prefix: str, first: str, lead: str
) -> list[Rule]:
  """Rules of a block.

  Args:
    config: Shape of the model.
    header: The tensors.
    prefix: Of the names, where '{layer}' may stand.
    first: The same name for a layer that exists.
    lead: The axis of stacked layers, or nothing.
  """

  def rule(ours: str, theirs: str, axes: str) -> Rule:
    left, right = axes.split(' -> ')
    return Rule(
      f'stack/blocks/{ours}', prefix + theirs, f'{lead}{left} -> {lead}{right}'
    )

  def weight(name: str) -> str:
    return name if first + name in header else f'{name}/w'

  if f'{first}attn/qkv_einsum/w' in header:
    fused = 'attn/qkv_einsum/w'
    attention = [
      rule('attention/query', fused, '0 H D h -> D H h'),
      rule('attention/key_value', fused, '1 K D h -> D 0 K h'),
      rule('attention/key_value', fused, '2 K D h -> D 1 K h'),
    ]
  else:
    attention = [
      rule('attention/query', 'attn/q_einsum/w', 'H D h -> D H h'),
      rule('attention/key_value', 'attn/kv_einsum/w', 's K D h -> D s K h'),
    ]
  gating = weight('mlp/gating_einsum')
  shape = header[first + gating].shape if first + gating in header else ()
  turned = (config.mlp_dim, config.width)
  if config.mlp_dim == config.width:
    is_turned = config.qk_norm
  else:
    is_turned = shape[-2:] == turned
  rules = [
    *attention,
    rule('attention/out', 'attn/attn_vec_einsum/w', 'H h D -> H h D'),
    rule(
      'mlp/gate_up', gating, 's F D -> D s F' if is_turned else 's D F -> D s F'
    ),
    rule('mlp/down', weight('mlp/linear'), 'F D -> F D'),
    rule('pre_attention_norm/scale', 'pre_attention_norm/scale', 'D -> D'),
    rule('pre_mlp_norm/scale', 'pre_ffw_norm/scale', 'D -> D'),
  ]
  if config.post_norms:
    rules += [
      rule('post_attention_norm/scale', 'post_attention_norm/scale', 'D -> D'),
      rule('post_mlp_norm/scale', 'post_ffw_norm/scale', 'D -> D'),
    ]
  if config.qk_norm:
    rules += [
      rule('attention/query_norm/scale', 'attn/_query_norm/scale', 'h -> h'),
      rule('attention/key_norm/scale', 'attn/_key_norm/scale', 'h -> h'),
    ]
  return rules


_OUTER = [
  Rule('embedding', 'embedder/input_embedding', 'V D -> V D'),
  Rule('final_norm/scale', 'final_norm/scale', 'D -> D'),
]


def _official(config: Config, header: Header) -> list[Rule]:
  blocks = _block_rules(config, header, 'layer_{layer}/', 'layer_0/', '')
  return [*_OUTER, *blocks]


def _stacked(config: Config, header: Header) -> list[Rule]:
  return [*_OUTER, *_block_rules(config, header, 'layers/', 'layers/', 'L ')]


def _infer(header: Header) -> GemmaConfig:
  """Config of a Gemma of unknown size, from shapes.

  What shapes do not tell is as in the smallest of its generation.
  """
  stacked = 'layers/attn/attn_vec_einsum/w' in header
  first = 'layers/' if stacked else 'layer_0/'
  heads, head_dim, width = header[f'{first}attn/attn_vec_einsum/w'].shape[-3:]
  kv = header.get(f'{first}attn/kv_einsum/w')
  down = header.get(f'{first}mlp/linear') or header[f'{first}mlp/linear/w']
  rows = header['embedder/input_embedding'].shape[0]
  if f'{first}attn/_query_norm/scale' in header:
    base = GEMMA_SIZES['gemma3_1b']
  elif f'{first}post_ffw_norm/scale' in header:
    base = GEMMA_SIZES['gemma2_2b']
  else:
    base = GEMMA_SIZES['gemma1_2b']
  return dataclasses.replace(
    base,
    vocab_size=_VOCAB if rows == _PADDED else rows,
    width=width,
    layers=(
      header['layers/attn/attn_vec_einsum/w'].shape[0]
      if stacked
      else len([n for n in header if n.endswith('/attn/attn_vec_einsum/w')])
    ),
    heads=heads,
    kv_heads=kv.shape[-3] if kv else heads,
    head_dim=head_dim,
    mlp_dim=down.shape[-2],
  )


# Parts of Gemma 3's multimodal checkpoints.
_VISION = (r'^embedder/mm_', r'^(SigLiPFromPatches_0|vision_encoder)/')

OFFICIAL_LAYOUT = TensorLayout(
  "Gemma's Flax checkpoint",
  GEMMA,
  'embedder/input_embedding',
  _official,
  unused=_VISION,
  marks='layer_0/attn/attn_vec_einsum/w',
  infer=_infer,
  padding=_PADDED - _VOCAB,
)
STACKED_LAYOUT = TensorLayout(
  'Gemma of big_vision',
  GEMMA,
  'embedder/input_embedding',
  _stacked,
  marks='layers/attn/attn_vec_einsum/w',
  infer=_infer,
)
