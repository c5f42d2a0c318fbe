"""Hugging Face's names: Gemma 1, 2, 3, SigLIP, and PaliGemma around them.

Sources: huggingface/transformers, models/gemma*/modeling_*.py,
models/siglip/modeling_siglip.py and models/paligemma. Linear weights are
[out, in]. The part's prefix depends on the model around it and on the age of
the file, e.g. 'model.', 'language_model.model.', 'model.language_model.'.
"""

from collections.abc import Sequence

from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.weights.layouts.tensor_layout import (
  CONNECTOR,
  ENCODER,
  GEMMA,
  Config,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.rules import Rule


def _blocks(theirs: str, rows: Sequence[tuple[str, str, str]]) -> list[Rule]:
  return [
    Rule(f'stack/blocks/{ours}', f'{theirs}.{{layer}}.{name}', axes)
    for ours, name, axes in rows
  ]


def _gemma(config: Config, header: Header) -> list[Rule]:
  assert isinstance(config, GemmaConfig)
  rows = [
    ('attention/query', 'self_attn.q_proj.weight', '(H h) D -> D H h'),
    ('attention/key_value', 'self_attn.k_proj.weight', '(K h) D -> D 0 K h'),
    ('attention/key_value', 'self_attn.v_proj.weight', '(K h) D -> D 1 K h'),
    ('attention/out', 'self_attn.o_proj.weight', 'D (H h) -> H h D'),
    ('mlp/gate_up', 'mlp.gate_proj.weight', 'F D -> D 0 F'),
    ('mlp/gate_up', 'mlp.up_proj.weight', 'F D -> D 1 F'),
    ('mlp/down', 'mlp.down_proj.weight', 'D F -> F D'),
    ('pre_attention_norm/scale', 'input_layernorm.weight', 'D -> D'),
  ]
  after_attention = 'post_attention_layernorm.weight'
  if config.post_norms:
    rows += [
      ('post_attention_norm/scale', after_attention, 'D -> D'),
      ('pre_mlp_norm/scale', 'pre_feedforward_layernorm.weight', 'D -> D'),
      ('post_mlp_norm/scale', 'post_feedforward_layernorm.weight', 'D -> D'),
    ]
  else:
    # In Gemma 1 this name means the norm before the MLP.
    rows += [('pre_mlp_norm/scale', after_attention, 'D -> D')]
  if config.qk_norm:
    rows += [
      ('attention/query_norm/scale', 'self_attn.q_norm.weight', 'h -> h'),
      ('attention/key_norm/scale', 'self_attn.k_norm.weight', 'h -> h'),
    ]
  return [
    Rule('embedding', 'embed_tokens.weight', 'V D -> V D'),
    Rule('final_norm/scale', 'norm.weight', 'D -> D'),
    *_blocks('layers', rows),
  ]


def _siglip(config: Config, header: Header) -> list[Rule]:
  assert isinstance(config, SiglipConfig)
  rows = [
    ('attention/out', 'self_attn.out_proj.weight', 'D (H h) -> H h D'),
    ('attention/out_bias', 'self_attn.out_proj.bias', 'D -> D'),
    ('attention_norm/scale', 'layer_norm1.weight', 'D -> D'),
    ('attention_norm/bias', 'layer_norm1.bias', 'D -> D'),
    ('mlp_norm/scale', 'layer_norm2.weight', 'D -> D'),
    ('mlp_norm/bias', 'layer_norm2.bias', 'D -> D'),
    ('mlp/up', 'mlp.fc1.weight', 'F D -> D F'),
    ('mlp/up_bias', 'mlp.fc1.bias', 'F -> F'),
    ('mlp/down', 'mlp.fc2.weight', 'D F -> F D'),
    ('mlp/down_bias', 'mlp.fc2.bias', 'D -> D'),
  ]
  fused = 'attention/query_key_value'
  for i, name in enumerate(('q_proj', 'k_proj', 'v_proj')):
    rows += [
      (fused, f'self_attn.{name}.weight', f'(H h) D -> D {i} H h'),
      (f'{fused}_bias', f'self_attn.{name}.bias', f'(H h) -> {i} H h'),
    ]
  patches = 'embeddings.patch_embedding'
  return [
    Rule('patch_embedding', f'{patches}.weight', 'D c p q -> p q c D'),
    Rule('patch_bias', f'{patches}.bias', 'D -> D'),
    Rule(
      'position_embedding',
      'embeddings.position_embedding.weight',
      'M D -> M D',
    ),
    Rule('final_norm/scale', 'post_layernorm.weight', 'D -> D'),
    Rule('final_norm/bias', 'post_layernorm.bias', 'D -> D'),
    *_blocks('encoder.layers', rows),
  ]


def _connector(config: Config, header: Header) -> list[Rule]:
  return [
    Rule('connector', 'linear.weight', 'D E -> E D'),
    Rule('connector_bias', 'linear.bias', 'D -> D'),
  ]


GEMMA_LAYOUT = TensorLayout(
  'Gemma of transformers',
  GEMMA,
  'embed_tokens.weight',
  _gemma,
  unused=(r'^layers\.\d+\.self_attn\.rotary_emb\.inv_freq$',),
  described=True,
)
SIGLIP_LAYOUT = TensorLayout(
  'SigLIP of transformers',
  ENCODER,
  'embeddings.patch_embedding.weight',
  _siglip,
  # The pooling head; soft tokens are taken before it.
  unused=(r'^head\.', r'^embeddings\.position_ids$'),
  carried=r'^head\.',
  described=True,
)
CONNECTOR_LAYOUT = TensorLayout(
  'PaliGemma of transformers',
  CONNECTOR,
  'multi_modal_projector.linear.weight',
  lambda config, header: [
    Rule(r.ours, f'multi_modal_projector.{r.theirs}', r.axes)
    for r in _connector(config, header)
  ],
)
