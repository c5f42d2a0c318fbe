"""Parameters of transformers' models, by the names and shapes of ours."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig


def _stack(
  weights: Mapping[str, torch.Tensor], prefix: str, layers: int
) -> Callable[[str], np.ndarray]:
  """Name within a layer -> that parameter of all layers."""
  return lambda name: np.stack(
    [weights[f'{prefix}.{layer}.{name}'].numpy() for layer in range(layers)]
  )


def gemma(
  weights: Mapping[str, torch.Tensor], config: GemmaConfig
) -> dict[str, np.ndarray]:
  """Parameters of Gemma{,2,3}ForCausalLM, linear weights [out, in]."""
  layers, width, head_dim = config.layers, config.width, config.head_dim
  stack = _stack(weights, 'model.layers', layers)

  def inward(name: str, heads: int) -> np.ndarray:
    kernel = stack(f'self_attn.{name}_proj.weight').swapaxes(1, 2)
    return kernel.reshape(layers, width, heads, head_dim)

  out = stack('self_attn.o_proj.weight').swapaxes(1, 2)
  # The name means the post-norm in Gemma 2 and 3, the pre-MLP norm in Gemma 1.
  after_attention = stack('post_attention_layernorm.weight')
  blocks = {
    'attention/query': inward('q', config.heads),
    'attention/key_value': np.stack(
      [inward('k', config.kv_heads), inward('v', config.kv_heads)], axis=2
    ),
    'attention/out': out.reshape(layers, config.heads, head_dim, width),
    'mlp/gate_up': np.stack(
      [
        stack('mlp.gate_proj.weight').swapaxes(1, 2),
        stack('mlp.up_proj.weight').swapaxes(1, 2),
      ],
      axis=2,
    ),
    'mlp/down': stack('mlp.down_proj.weight').swapaxes(1, 2),
    'pre_attention_norm/scale': stack('input_layernorm.weight'),
  }
  if config.post_norms:
    blocks |= {
      'post_attention_norm/scale': after_attention,
      'pre_mlp_norm/scale': stack('pre_feedforward_layernorm.weight'),
      'post_mlp_norm/scale': stack('post_feedforward_layernorm.weight'),
    }
  else:
    blocks['pre_mlp_norm/scale'] = after_attention
  if config.qk_norm:
    blocks |= {
      'attention/query_norm/scale': stack('self_attn.q_norm.weight'),
      'attention/key_norm/scale': stack('self_attn.k_norm.weight'),
    }
  return {
    'embedding': weights['model.embed_tokens.weight'].numpy(),
    'final_norm/scale': weights['model.norm.weight'].numpy(),
    **{f'stack/blocks/{name}': value for name, value in blocks.items()},
  }


def siglip(
  weights: Mapping[str, torch.Tensor], config: SiglipConfig
) -> dict[str, np.ndarray]:
  """Parameters of SiglipVisionModel without its pooling head."""
  layers, width = config.layers, config.width
  stack = _stack(weights, 'encoder.layers', layers)
  head_dim = width // config.heads
  heads = (config.heads, head_dim)
  names = ('q_proj', 'k_proj', 'v_proj')
  blocks = {
    'attention/query_key_value': np.stack(
      [
        stack(f'self_attn.{name}.weight')
        .swapaxes(1, 2)
        .reshape(layers, width, *heads)
        for name in names
      ],
      axis=2,
    ),
    'attention/query_key_value_bias': np.stack(
      [
        stack(f'self_attn.{name}.bias').reshape(layers, *heads)
        for name in names
      ],
      axis=1,
    ),
    'attention/out': stack('self_attn.out_proj.weight')
    .swapaxes(1, 2)
    .reshape(layers, *heads, width),
    'attention/out_bias': stack('self_attn.out_proj.bias'),
    'attention_norm/scale': stack('layer_norm1.weight'),
    'attention_norm/bias': stack('layer_norm1.bias'),
    'mlp_norm/scale': stack('layer_norm2.weight'),
    'mlp_norm/bias': stack('layer_norm2.bias'),
    'mlp/up': stack('mlp.fc1.weight').swapaxes(1, 2),
    'mlp/up_bias': stack('mlp.fc1.bias'),
    'mlp/down': stack('mlp.fc2.weight').swapaxes(1, 2),
    'mlp/down_bias': stack('mlp.fc2.bias'),
  }

  def single(name: str) -> np.ndarray:
    return weights[name].numpy()

  kernel = single('embeddings.patch_embedding.weight').transpose(2, 3, 1, 0)
  return {
    'patch_embedding': kernel,
    'patch_bias': single('embeddings.patch_embedding.bias'),
    'position_embedding': single('embeddings.position_embedding.weight'),
    'final_norm/scale': single('post_layernorm.weight'),
    'final_norm/bias': single('post_layernorm.bias'),
    **{f'stack/blocks/{name}': value for name, value in blocks.items()},
  }
