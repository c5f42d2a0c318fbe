"""config.json of transformers and diffusers: read, or refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import AutoConfig

from tests.weights import hub
from tests.weights.test_errors import message
from unifluid_jax.models.sizes import GEMMA_SIZES, SIGLIP_SIZES, VAE_SIZES
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.format_detection import check_config
from unifluid_jax.weights.hf_config import from_json
from unifluid_jax.weights.pretrained import open_pretrained


def test_configs_as_old_files_have_them(tmp_path):
  """Gemma 3's older keys, and what PaliGemma's file leaves out."""
  old = {
    'model_type': 'gemma3_text',
    'num_hidden_layers': 8,
    'rope_theta': 1e6,
    'rope_local_base_freq': 2e4,
    'rope_scaling': {'factor': 4.0, 'rope_type': 'linear'},
    'sliding_window': 512,
    'sliding_window_pattern': 3,
  }
  gemma = from_json(old, 'config.json').configs['gemma']
  assert gemma.layer_kinds == ('local', 'local', 'global') * 2 + ('local',) * 2
  assert (gemma.rope_theta, gemma.local_rope_theta) == (1e6, 2e4)
  assert (gemma.rope_scaling, gemma.window) == (4.0, 512)
  text = {
    'model_type': 'gemma',
    'hidden_size': 2048,
    'intermediate_size': 16_384,
    'num_attention_heads': 8,
    'num_hidden_layers': 18,
    'num_key_value_heads': 1,
    'vocab_size': 257_216,
  }
  vision = {
    'model_type': 'siglip_vision_model',
    'hidden_size': 1152,
    'intermediate_size': 4304,
    'num_attention_heads': 16,
    'num_hidden_layers': 27,
    'patch_size': 14,
  }
  parts = from_json(
    {'model_type': 'paligemma', 'text_config': text, 'vision_config': vision},
    'config.json',
  ).configs
  assert parts['encoder'] == SIGLIP_SIZES['so400m14_224']
  check_config('gemma', parts['gemma'], GEMMA_SIZES['gemma1_2b'], 'file')
  config = AutoConfig.for_model('gemma2', query_pre_attn_scalar=256).to_dict()
  found = from_json(config, 'config.json').configs['gemma']
  check_config('gemma', found, GEMMA_SIZES['gemma2_2b'], 'file')
  vae = {
    '_class_name': 'AutoencoderKL',
    'block_out_channels': [128, 256, 512, 512],
    'down_block_types': ['DownEncoderBlock2D'] * 4,
    'up_block_types': ['UpDecoderBlock2D'] * 4,
    'layers_per_block': 2,
    'latent_channels': 4,
  }
  found = from_json(vae, 'config.json').configs['vae']
  check_config('vae', found, VAE_SIZES['sd'], 'file')
  del vae['block_out_channels']
  (tmp_path / 'config.json').write_text(json.dumps(vae))
  weights = {
    'decoder.conv_in.weight': np.ones(1),
    'decoder.conv_norm_out.weight': np.ones(1),
  }
  save_file(weights, tmp_path / 'vae.safetensors')
  with pytest.raises(UserError, match='block_out_channels'):
    open_pretrained(str(tmp_path))


PUBLISHED = {
  # Gemma 1 calls its tanh form 'gelu'.
  'gemma1_7b': {'model_type': 'gemma', 'hidden_act': 'gelu'},
  'gemma2_27b': {
    'model_type': 'gemma2',
    'head_dim': 128,
    'hidden_size': 4608,
    'intermediate_size': 36_864,
    'num_attention_heads': 32,
    'num_hidden_layers': 46,
    'num_key_value_heads': 16,
    'query_pre_attn_scalar': 144,
  },
  'gemma3_1b': {
    'model_type': 'gemma3_text',
    'hidden_size': 1152,
    'intermediate_size': 6912,
    'num_attention_heads': 4,
    'num_hidden_layers': 26,
    'num_key_value_heads': 1,
    'rope_scaling': None,
    'sliding_window': 512,
    'sliding_window_pattern': 6,
    'vocab_size': 262_144,
  },
  'gemma3_4b': {
    'model_type': 'gemma3',
    'text_config': {
      'hidden_size': 2560,
      'intermediate_size': 10_240,
      'model_type': 'gemma3_text',
      'num_hidden_layers': 34,
      'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
      'sliding_window': 1024,
    },
    'vision_config': {
      'hidden_size': 1152,
      'image_size': 896,
      'intermediate_size': 4304,
      'model_type': 'siglip_vision_model',
      'num_attention_heads': 16,
      'num_hidden_layers': 27,
      'patch_size': 14,
    },
  },
  'gemma3_27b': {
    'model_type': 'gemma3',
    'text_config': {
      'head_dim': 128,
      'hidden_size': 5376,
      'intermediate_size': 21_504,
      'model_type': 'gemma3_text',
      'num_attention_heads': 32,
      'num_hidden_layers': 62,
      'num_key_value_heads': 16,
      'query_pre_attn_scalar': 168,
      'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
      'sliding_window': 1024,
    },
  },
}


@pytest.mark.parametrize('size', PUBLISHED)
def test_configs_as_the_hub_has_them(size):
  """What they leave out is as transformers' defaults have it."""
  gemma = from_json(PUBLISHED[size], 'config.json').configs['gemma']
  check_config('gemma', gemma, GEMMA_SIZES[size], 'file')


@pytest.mark.parametrize(
  ('content', 'unused'),
  [
    ({'model_type': 'gemma3_text'}, {'attn_logit_softcapping': 5.0}),
    ({'model_type': 'gemma3'}, {'text_config': {'final_logit_softcapping': 5}}),
    (
      {'model_type': 'gemma', 'hidden_act': 'gelu'},
      {'attn_logit_softcapping': 5.0, 'final_logit_softcapping': 6.0},
    ),
  ],
)
def test_keys_that_transformers_does_not_use(content, unused):
  found = from_json(content | unused, 'config.json')
  assert found == from_json(content, 'config.json')


@pytest.mark.parametrize(
  ('changed', 'told'),
  [
    ({'num_attention_heads': 0}, 'num_attention_heads 0; sizes are'),
    ({'num_key_value_heads': 3}, 'kv_heads must divide heads'),
    ({'num_hidden_layers': -1}, 'num_hidden_layers -1; sizes are'),
    ({'num_hidden_layers': 10**9}, 'whole numbers from 1 to 1000'),
    ({'hidden_size': '20'}, "hidden_size '20'; sizes are"),
    ({'hidden_size': 20.0}, 'hidden_size 20.0; sizes are'),
    ({'rms_norm_eps': 0}, 'rms_norm_eps 0; it must be a number above 0'),
    ({'rms_norm_eps': 10**400}, '0; it must be a number above 0'),
    ({'rms_norm_eps': float('nan')}, 'rms_norm_eps nan; it must be'),
    ({'query_pre_attn_scalar': -1}, 'query_pre_attn_scalar -1; it must be'),
    ({'attn_logit_softcapping': 'a'}, "attn_logit_softcapping 'a'; it must"),
    ({'sliding_window': None}, 'sliding_window None; sizes are'),
    ({'head_dim': 5}, 'head_dim is 5; RoPE needs it even'),
    ({'layer_types': ['full_attention']}, 'it must be 3 of sliding_attention'),
    ({'layer_types': ['chunked_attention'] * 3}, 'it must be 3 of sliding_at'),
    ({'hidden_activation': 'relu'}, "hidden_activation 'relu'; known here"),
    ({'attention_bias': True}, 'attention_bias True; known here: False'),
    # The exact form; only Gemma 1's first files mean tanh by it.
    ({'hidden_activation': 'gelu'}, "hidden_activation 'gelu'; known here"),
    ({'rope_parameters': {'rope_type': 'yarn'}}, "rope_type 'yarn'; known"),
    (
      {'rope_parameters': {'rope_type': 'linear', 'factor': 2.0}},
      'positions of its sliding layers by 2.0',
    ),
    (
      {
        'model_type': 'gemma3_text',
        'rope_parameters': {
          'full_attention': {'rope_type': 'default'},
          'sliding_attention': {'rope_type': 'linear', 'factor': 4.0},
        },
      },
      'positions of its sliding layers by 4.0',
    ),
    (
      {'model_type': 'gemma3_text', 'use_bidirectional_attention': True},
      'use_bidirectional_attention True; known here: False',
    ),
    ({'rope_parameters': 'none'}, "'none' where an object should be"),
    (
      {'rope_parameters': {'rope_type': 'linear', 'factor': 0}},
      'factor 0; it must be a number above 0',
    ),
    ({'model_type': ['gemma']}, "unknown model ['gemma']"),
  ],
)
def test_a_config_that_is_not_ours(folder, changed, told):
  file = folder / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | changed))
  found = message(folder)
  assert told in found and str(file) in found


@pytest.mark.parametrize(
  ('changed', 'told'),
  [
    ({'norm_num_groups': 3}, 'norm_num_groups 3; it must divide'),
    ({'norm_num_groups': 0}, 'norm_num_groups 0; sizes are'),
    ({'scaling_factor': 'a'}, "scaling_factor 'a'; it must be a number"),
    ({'scaling_factor': 0}, 'scaling_factor 0; it must be a number'),
    ({'block_out_channels': None}, 'block_out_channels None; it must be a li'),
    ({'down_block_types': ['Odd'] * 3}, 'known here: DownEncoderBlock2D'),
    ({'use_quant_conv': False}, 'use_post_quant_conv True; known here: False'),
    ({'latents_mean': [0.0] * 4}, 'latents_std None; it must be a list'),
    (
      {'latents_mean': [0.0] * 4, 'latents_std': [1.0] * 3},
      'latents_std [1.0, 1.0, 1.0]; it must be 4 numbers',
    ),
  ],
)
def test_an_autoencoder_that_is_not_ours(tmp_path, changed, told):
  hub.save(hub.vae('sd'), tmp_path)
  file = tmp_path / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | changed))
  found = message(tmp_path)
  assert told in found and str(file) in found
