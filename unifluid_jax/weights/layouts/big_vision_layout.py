"""big_vision's names of SigLIP's image tower and PaliGemma's connector.

Source: google-research/big_vision, models/vit.py. Blocks are stacked
('encoderblock/...' with a leading axis) or not ('encoderblock_0/...').
"""

from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.weights.layouts.tensor_layout import (
  CONNECTOR,
  ENCODER,
  Config,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.rules import Rule

_STACKED = 'Transformer/encoderblock/'
_FIRST = 'Transformer/encoderblock_0/'
_ATTENTION = 'MultiHeadDotProductAttention_0'
_MLP = 'MlpBlock_0'


def _siglip(config: Config, header: Header) -> list[Rule]:
  stacked = any(name.startswith(_STACKED) for name in header)
  prefix = _STACKED if stacked else 'Transformer/encoderblock_{layer}/'
  lead = 'L ' if stacked else ''

  def rule(ours: str, theirs: str, axes: str) -> Rule:
    left, right = axes.split(' -> ')
    return Rule(
      f'stack/blocks/{ours}', prefix + theirs, f'{lead}{left} -> {lead}{right}'
    )

  rules = [
    Rule('patch_embedding', 'embedding/kernel', 'p q c D -> p q c D'),
    Rule('patch_bias', 'embedding/bias', 'D -> D'),
    Rule('position_embedding', 'pos_embedding', '0 M D -> M D'),
    Rule('final_norm/scale', 'Transformer/encoder_norm/scale', 'D -> D'),
    Rule('final_norm/bias', 'Transformer/encoder_norm/bias', 'D -> D'),
    rule('attention/out', f'{_ATTENTION}/out/kernel', 'H h D -> H h D'),
    rule('attention/out_bias', f'{_ATTENTION}/out/bias', 'D -> D'),
    rule('mlp/up', f'{_MLP}/Dense_0/kernel', 'D F -> D F'),
    rule('mlp/up_bias', f'{_MLP}/Dense_0/bias', 'F -> F'),
    rule('mlp/down', f'{_MLP}/Dense_1/kernel', 'F D -> F D'),
    rule('mlp/down_bias', f'{_MLP}/Dense_1/bias', 'D -> D'),
  ]
  for ours, theirs in (
    ('attention_norm', 'LayerNorm_0'),
    ('mlp_norm', 'LayerNorm_1'),
  ):
    for leaf in ('scale', 'bias'):
      rules.append(rule(f'{ours}/{leaf}', f'{theirs}/{leaf}', 'D -> D'))
  fused = 'attention/query_key_value'
  for i, name in enumerate(('query', 'key', 'value')):
    rules += [
      rule(fused, f'{_ATTENTION}/{name}/kernel', f'D H h -> D {i} H h'),
      rule(f'{fused}_bias', f'{_ATTENTION}/{name}/bias', f'H h -> {i} H h'),
    ]
  return rules


def _infer(header: Header) -> SiglipConfig:
  """Everything of the config is in the shapes."""
  stacked = any(name.startswith(_STACKED) for name in header)
  block = _STACKED if stacked else _FIRST
  patch, _, _, width = header['embedding/kernel'].shape
  query = f'{block}{_ATTENTION}/query/kernel'
  heads = header[query].shape[-2]
  last = f'/{_ATTENTION}/query/kernel'
  blocks = [name for name in header if name.endswith(last)]
  return SiglipConfig(
    image_size=patch * round(header['pos_embedding'].shape[1] ** 0.5),
    patch_size=patch,
    width=width,
    layers=(
      header[query].shape[0]
      if stacked
      else len([n for n in blocks if n.startswith('Transformer/')])
    ),
    heads=heads,
    mlp_dim=header[f'{block}{_MLP}/Dense_0/kernel'].shape[-1],
  )


SIGLIP_LAYOUT = TensorLayout(
  'SigLIP of big_vision',
  ENCODER,
  'pos_embedding',
  _siglip,
  # The pooling head, and PaliGemma's connector or SigLIP's projection.
  unused=(r'^MAPHead_0/', r'^head/'),
  marks='embedding/kernel',
  infer=_infer,
)
CONNECTOR_LAYOUT = TensorLayout(
  'PaliGemma of big_vision',
  CONNECTOR,
  'img/head/kernel',
  lambda config, header: [
    Rule('connector', 'img/head/kernel', 'E D -> E D'),
    Rule('connector_bias', 'img/head/bias', 'D -> D'),
  ],
  marks='llm/embedder/input_embedding',
)
