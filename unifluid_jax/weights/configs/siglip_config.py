"""SigLIP's image tower in transformers' config.json.

Defaults are those of configuration_siglip.py, which files on the Hub leave out.
"""

from typing import Any

from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.weights.configs.fields import Fields

MODEL_TYPE = 'siglip_vision_model'
ACTIVATIONS = ('gelu_pytorch_tanh', 'gelu_new', 'gelu_fast')
"""Names of the tanh form of GELU."""

_DEFAULTS = {
  'hidden_size': 768,
  'intermediate_size': 3072,
  'num_hidden_layers': 12,
  'num_attention_heads': 12,
  'image_size': 224,
  'patch_size': 16,
}


def read(values: Any) -> SiglipConfig:
  """The encoder that a config.json, or its vision_config, describes."""
  fields = Fields(values, _DEFAULTS)
  fields.one_of('model_type', (MODEL_TYPE,), MODEL_TYPE)
  fields.one_of('hidden_act', ACTIVATIONS, ACTIVATIONS[0])
  return SiglipConfig(
    image_size=fields.size('image_size'),
    patch_size=fields.size('patch_size'),
    width=fields.size('hidden_size'),
    layers=fields.count('num_hidden_layers'),
    heads=fields.size('num_attention_heads'),
    mlp_dim=fields.size('intermediate_size'),
    norm_eps=fields.number('layer_norm_eps', 1e-6),
  )


def write(config: SiglipConfig, dtype: str) -> dict[str, Any]:
  """config.json of SiglipVisionModel, without its pooling head."""
  return {
    'architectures': ['SiglipVisionModel'],
    'model_type': MODEL_TYPE,
    'dtype': dtype,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_channels': 3,
    'image_size': config.image_size,
    'patch_size': config.patch_size,
    'hidden_act': ACTIVATIONS[0],
    'layer_norm_eps': config.norm_eps,
    'vision_use_head': False,
  }
