"""Tiny random models of transformers and diffusers, saved as files."""

import pathlib

import torch
from diffusers import AutoencoderKL
from transformers import (
  Gemma2Config,
  Gemma2ForCausalLM,
  Gemma3ForCausalLM,
  Gemma3TextConfig,
  GemmaConfig,
  GemmaForCausalLM,
  PaliGemmaConfig,
  PaliGemmaForConditionalGeneration,
  SiglipVisionConfig,
  SiglipVisionModel,
)

# Query and kv heads differ or not, sizes are odd where they may be.
GEMMA = {
  'gemma 1 MQA': (1, 24, 4, 1, 10, 35, 3),
  'gemma 1 MHA': (1, 21, 3, 3, 6, 29, 2),
  'gemma 1 GQA': (1, 28, 4, 2, 8, 33, 1),
  'gemma 2 MQA': (2, 32, 2, 1, 8, 45, 4),
  'gemma 2 MHA': (2, 27, 3, 3, 14, 31, 2),
  'gemma 2 GQA': (2, 20, 4, 2, 6, 37, 3),
  'gemma 3 MQA': (3, 24, 3, 1, 8, 29, 4),
  'gemma 3 MHA': (3, 26, 2, 2, 12, 35, 3),
  'gemma 3 GQA': (3, 36, 6, 3, 4, 41, 7),
}
"""(generation, width, heads, kv heads, head size, MLP, layers)"""

SIGLIP = {
  'three heads': (21, 7, 24, 3, 3, 41),
  'one layer': (16, 4, 20, 1, 2, 33),
  'one patch': (9, 9, 10, 2, 5, 17),
  # As so400m-patch14-384: the last pixels are of no patch.
  'cut edge': (23, 7, 12, 1, 2, 19),
}
"""(image size, patch size, width, layers, heads, MLP)"""

VAE = {
  'sd': {'widths': (8, 16, 16), 'channels': 4},
  '16 channels': {'widths': (16, 8), 'channels': 16, 'quant': False},
  'attention': {'widths': (12, 4), 'channels': 3, 'attention': (1,)},
}


def randomize(model: torch.nn.Module, std: float | None = None, seed: int = 0):
  """Gives every parameter a random value, and the model in eval mode."""
  torch.manual_seed(seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      scale = 0.3 if 'norm' in name else 1.5 * parameter.shape[-1] ** -0.5
      parameter.add_((std or scale) * torch.randn_like(parameter))
  return model.eval()


def gemma_config(case: str, vocab_size: int = 61):
  """transformers' config of a case of GEMMA."""
  generation, width, heads, kv_heads, head_dim, mlp, layers = GEMMA[case]
  kwargs = {
    'vocab_size': vocab_size,
    'hidden_size': width,
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads,
    'head_dim': head_dim,
    'intermediate_size': mlp,
    'num_hidden_layers': layers,
    'attn_implementation': 'eager',
  }
  if generation == 1:
    return GemmaConfig(**kwargs)
  kwargs |= {'query_pre_attn_scalar': head_dim + 3, 'sliding_window': 11}
  if generation == 2:
    caps = {'attn_logit_softcapping': 3.0, 'final_logit_softcapping': 4.0}
    return Gemma2Config(**kwargs, **caps)
  rope = {
    'full_attention': {
      'rope_type': 'linear',
      'factor': 8.0,
      'rope_theta': 1_000_000.0,
    },
    'sliding_attention': {'rope_type': 'default', 'rope_theta': 10_000.0},
  }
  return Gemma3TextConfig(**kwargs, rope_parameters=rope)


def gemma(case: str, seed: int = 0, **kwargs) -> torch.nn.Module:
  """A Gemma of a case."""
  config = gemma_config(case, **kwargs)
  models = {
    'gemma': GemmaForCausalLM,
    'gemma2': Gemma2ForCausalLM,
    'gemma3_text': Gemma3ForCausalLM,
  }
  return randomize(models[config.model_type](config), seed=seed)


def siglip_config(case: str, **kwargs) -> SiglipVisionConfig:
  """transformers' config of a case of SIGLIP."""
  size, patch, width, layers, heads, mlp = SIGLIP[case]
  return SiglipVisionConfig(
    image_size=size,
    patch_size=patch,
    hidden_size=width,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    intermediate_size=mlp,
    attn_implementation='eager',
    **kwargs,
  )


def siglip(case: str, seed: int = 0) -> torch.nn.Module:
  """A SigLIP image tower of a case, with its pooling head."""
  return randomize(SiglipVisionModel(siglip_config(case)), seed=seed)


def paligemma(
  gemma_case: str, siglip_case: str, seed: int = 0, vocab_size: int = 64
) -> torch.nn.Module:
  """A PaliGemma of two cases."""
  text = gemma_config(gemma_case, vocab_size=vocab_size)
  if text.model_type == 'gemma2':
    # Longer than the rows, as PaliGemma 2's is.
    text.sliding_window = 64
  config = PaliGemmaConfig(
    text_config=text.to_dict(),
    vision_config=siglip_config(siglip_case, vision_use_head=False).to_dict(),
    projection_dim=text.hidden_size,
    image_token_index=vocab_size - 1,
    hidden_size=text.hidden_size,
    attn_implementation='eager',
  )
  return randomize(PaliGemmaForConditionalGeneration(config), seed=seed)


def vae(case: str, seed: int = 0, **kwargs) -> AutoencoderKL:
  """An autoencoder of a case."""
  options = VAE[case]
  levels = range(len(options['widths']))
  quant = options.get('quant', True)
  down = {False: 'DownEncoderBlock2D', True: 'AttnDownEncoderBlock2D'}
  model = AutoencoderKL(
    down_block_types=[
      down[level in options.get('attention', ())] for level in levels
    ],
    up_block_types=['UpDecoderBlock2D' for _ in levels],
    block_out_channels=options['widths'],
    layers_per_block=len(options['widths']) - 1,
    latent_channels=options['channels'],
    norm_num_groups=2,
    use_quant_conv=quant,
    use_post_quant_conv=quant,
    **kwargs,
  )
  return randomize(model, 0.1, seed)


def save(model, folder: pathlib.Path, **kwargs) -> pathlib.Path:
  """Saves a model as transformers or diffusers do."""
  model.save_pretrained(folder, **kwargs)
  return folder
