"""Gemma 1, 2 and 3 in transformers' config.json.

Defaults are those of configuration_gemma*.py, which files on the Hub leave out.
"""

from typing import Any

from unifluid_jax.models.gemma import GLOBAL, LOCAL, GemmaConfig
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.configs.fields import Fields, Json
from unifluid_jax.weights.configs.siglip_config import ACTIVATIONS

_KINDS = {'sliding_attention': LOCAL, 'full_attention': GLOBAL}
_ARCHITECTURES = {
  'gemma': 'GemmaForCausalLM',
  'gemma2': 'Gemma2ForCausalLM',
  'gemma3_text': 'Gemma3ForCausalLM',
}
MODEL_TYPES = tuple(_ARCHITECTURES)

_GEMMA1 = {
  'vocab_size': 256_000,
  'hidden_size': 3072,
  'intermediate_size': 24_576,
  'num_hidden_layers': 28,
  'num_attention_heads': 16,
  'num_key_value_heads': 16,
  'head_dim': 256,
}
_GEMMA2 = {
  'vocab_size': 256_000,
  'hidden_size': 2304,
  'intermediate_size': 9216,
  'num_hidden_layers': 26,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'query_pre_attn_scalar': 256,
  'sliding_window': 4096,
}
_CAPS = {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0}
_DEFAULTS: dict[str, Json] = {
  'gemma': _GEMMA1,
  'gemma2': _GEMMA2 | _CAPS,
  'gemma3_text': _GEMMA2 | {'vocab_size': 262_208, 'rope_theta': 1_000_000.0},
}
# Of a layer without a kind: every n-th is global.
_PERIODS = {'gemma2': 2, 'gemma3_text': 6}


def read(values: Json, model_type: str) -> GemmaConfig:
  """The Gemma that a config.json, or its text_config, describes.

  Args:
    values: What the file says.
    model_type: What it is where the file says nothing.
  """
  given = Fields(values)
  kind = given.one_of('model_type', MODEL_TYPES, model_type)
  fields = Fields(values, _DEFAULTS[kind])
  fields.one_of('attention_bias', (False,), default=False)
  if kind == 'gemma3_text':
    # Windows of another width; PaliGemma, of Gemma 1 and 2, has it by itself.
    fields.one_of('use_bidirectional_attention', (False,), default=False)
  # Gemma 1's first files call the tanh form 'gelu' under the older key.
  fields.one_of('hidden_act', (*ACTIVATIONS, 'gelu'), ACTIVATIONS[0])
  fields.one_of('hidden_activation', ACTIVATIONS, ACTIVATIONS[0])
  head_dim = fields.size('head_dim')
  kinds = _layer_kinds(fields, kind)
  theta, local_theta, scaling = _rope(fields, kind, has_local=LOCAL in kinds)
  scalar = fields.maybe('query_pre_attn_scalar') or head_dim
  return GemmaConfig(
    vocab_size=fields.size('vocab_size'),
    width=fields.size('hidden_size'),
    layers=len(kinds),
    heads=fields.size('num_attention_heads'),
    kv_heads=fields.size('num_key_value_heads'),
    head_dim=head_dim,
    mlp_dim=fields.size('intermediate_size'),
    # transformers reads more of these keys than it uses.
    attention_softcap=(
      fields.maybe('attn_logit_softcapping') if kind == 'gemma2' else None
    ),
    final_softcap=(
      fields.maybe('final_logit_softcapping') if kind != 'gemma' else None
    ),
    post_norms=kind != 'gemma',
    qk_norm=kind == 'gemma3_text',
    query_scale=(
      None if kind == 'gemma' or scalar == head_dim else scalar**-0.5
    ),
    pattern=_period(kinds),
    window=fields.size('sliding_window') if LOCAL in kinds else None,
    rope_theta=theta,
    local_rope_theta=local_theta if LOCAL in kinds else theta,
    rope_scaling=scaling,
    norm_eps=fields.number('rms_norm_eps', 1e-6),
  )


def _layer_kinds(fields: Fields, kind: str) -> tuple[str, ...]:
  layers = fields.count('num_hidden_layers')
  if kind == 'gemma':
    return (GLOBAL,) * layers
  if fields.get('layer_types') is not None:
    names = fields.items('layer_types')
    if len(names) != layers or any(str(name) not in _KINDS for name in names):
      raise fields.wrong(
        'layer_types', f'it must be {layers} of {", ".join(_KINDS)}'
      )
    return tuple(_KINDS[name] for name in names)
  period = _PERIODS[kind]
  if fields.get('sliding_window_pattern') is not None:
    period = fields.size('sliding_window_pattern')
  return tuple(
    LOCAL if (layer + 1) % period else GLOBAL for layer in range(layers)
  )


def _period(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """The shortest pattern that repeats to these layers."""
  for length in range(1, len(kinds)):
    if all(k == kinds[i % length] for i, k in enumerate(kinds)):
      return kinds[:length]
  return kinds


def _rope(
  fields: Fields, kind: str, *, has_local: bool
) -> tuple[float, float, float]:
  """Bases of global and local layers, and the scaling of global ones.

  New files have 'rope_parameters', for all layers or for each kind of layer;
  old ones 'rope_scaling', 'rope_theta' and 'rope_local_base_freq'.

  Raises:
    UserError: Local layers have a scaling, which our model has not.
  """
  parameters = fields.section('rope_parameters')
  full = parameters.section('full_attention', parameters)
  local = parameters.section('sliding_attention', full)
  theta = full.number('rope_theta', fields.number('rope_theta', 10_000.0))
  of_local = theta
  if kind == 'gemma3_text':
    of_local = fields.number('rope_local_base_freq', 10_000.0)
  scaling = full if full else fields.section('rope_scaling')
  factor = _scaling(scaling)
  of_sliding = _scaling(scaling if kind == 'gemma2' else local)
  if has_local and of_sliding != 1:
    raise UserError(
      f'it divides the positions of its sliding layers by {of_sliding}, which '
      'no published Gemma does'
    )
  return theta, local.number('rope_theta', of_local), factor


def _scaling(rope: Fields) -> float:
  """What positions are divided by."""
  older = rope.get('type', 'default')
  kind = rope.one_of('rope_type', ('default', 'linear'), older)
  return rope.number('factor', 1.0) if kind == 'linear' else 1.0


def write(config: GemmaConfig, dtype: str) -> dict[str, Any]:
  """config.json of Gemma{,2,3}ForCausalLM.

  Keys that this generation of Gemma lacks are left out, see `read`.
  """
  kind = 'gemma2' if config.post_norms else 'gemma'
  kind = 'gemma3_text' if config.qk_norm else kind
  scale = config.query_scale or config.head_dim**-0.5
  default = {'rope_type': 'default'}
  linear = {'rope_type': 'linear', 'factor': config.rope_scaling}
  rope = {
    **(linear if config.rope_scaling != 1 else default),
    'rope_theta': config.rope_theta,
  }
  result: dict[str, Any] = {
    'architectures': [_ARCHITECTURES[kind]],
    'model_type': kind,
    'dtype': dtype,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'hidden_activation': ACTIVATIONS[0],
    'hidden_act': ACTIVATIONS[0],
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': True,
    'attention_bias': False,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'bos_token_id': 2,
    'rope_parameters': rope,
  }
  if kind == 'gemma':
    return result
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
  if kind == 'gemma2':
    return result
  result['rope_parameters'] = {
    'full_attention': rope,
    'sliding_attention': {**default, 'rope_theta': config.local_rope_theta},
  }
  return result


def _whole(value: float) -> float:
  """Returns an int if the value is integral, as transformers expects."""
  return round(value) if abs(value - round(value)) < 1e-6 else value
