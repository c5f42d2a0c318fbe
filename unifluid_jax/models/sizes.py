"""Named sizes of the models.

Gemma: google-deepmind/gemma, gm/nn/_gemma.py (1: git history of
gemma/transformer.py), with the vocabulary of the tokenizer; the official
tables of Gemma 1 and 2 have 128 more rows, never used. SigLIP:
google-research/big_vision, models/vit.py. VAE: stabilityai/sd-vae-ft-ema's
config.json; LTH14/mar, models/vae.py. The sizes called 'tiny' are ours.
"""

import dataclasses

from unifluid_jax.models.gemma import GLOBAL, LOCAL, GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.vae import VAEConfig

_VOCAB = 256_000
_VOCAB_3 = 262_144

_GEMMA1_2B = GemmaConfig(
  vocab_size=_VOCAB,
  width=2048,
  layers=18,
  heads=8,
  kv_heads=1,
  head_dim=256,
  mlp_dim=16_384,
)

_GEMMA2_2B = GemmaConfig(
  vocab_size=_VOCAB,
  width=2304,
  layers=26,
  heads=8,
  kv_heads=4,
  head_dim=256,
  mlp_dim=9216,
  attention_softcap=50.0,
  final_softcap=30.0,
  post_norms=True,
  pattern=(LOCAL, GLOBAL),
  window=4096,
)

_GEMMA3_1B = GemmaConfig(
  vocab_size=_VOCAB_3,
  width=1152,
  layers=26,
  heads=4,
  kv_heads=1,
  head_dim=256,
  mlp_dim=6912,
  post_norms=True,
  qk_norm=True,
  pattern=(LOCAL,) * 5 + (GLOBAL,),
  window=512,
  rope_theta=1_000_000.0,
)

# From 4B on, positions of the global layers are divided by 8.
_GEMMA3_4B = dataclasses.replace(
  _GEMMA3_1B,
  width=2560,
  layers=34,
  heads=8,
  kv_heads=4,
  mlp_dim=10_240,
  window=1024,
  rope_scaling=8.0,
)

GEMMA_SIZES: dict[str, GemmaConfig] = {
  'gemma1_2b': _GEMMA1_2B,
  'gemma1_7b': dataclasses.replace(
    _GEMMA1_2B, width=3072, layers=28, heads=16, kv_heads=16, mlp_dim=24_576
  ),
  # GEMMA2_ML of gemma/research/t5gemma/config.py: the paper's 0.7B, most
  # likely; no checkpoint of it is public.
  'gemma2_0.7b': dataclasses.replace(
    _GEMMA2_2B, width=1152, heads=4, mlp_dim=6912
  ),
  'gemma2_2b': _GEMMA2_2B,
  'gemma2_9b': dataclasses.replace(
    _GEMMA2_2B, width=3584, layers=42, heads=16, kv_heads=8, mlp_dim=14_336
  ),
  'gemma2_27b': dataclasses.replace(
    _GEMMA2_2B,
    width=4608,
    layers=46,
    heads=32,
    kv_heads=16,
    head_dim=128,
    mlp_dim=36_864,
    query_scale=(4608 / 32) ** -0.5,
  ),
  'gemma3_270m': dataclasses.replace(
    _GEMMA3_1B, width=640, layers=18, mlp_dim=2048
  ),
  'gemma3_1b': _GEMMA3_1B,
  'gemma3_4b': _GEMMA3_4B,
  'gemma3_12b': dataclasses.replace(
    _GEMMA3_4B, width=3840, layers=48, heads=16, kv_heads=8, mlp_dim=15_360
  ),
  'gemma3_27b': dataclasses.replace(
    _GEMMA3_4B,
    width=5376,
    layers=62,
    heads=32,
    kv_heads=16,
    head_dim=128,
    mlp_dim=21_504,
    query_scale=(5376 / 32) ** -0.5,
  ),
  # Rows are shorter than Gemma 2's window, so every layer is global; the
  # vocabulary is the tokenizer's, to be replaced.
  'tiny': dataclasses.replace(
    _GEMMA2_2B,
    vocab_size=4096,
    width=192,
    layers=6,
    heads=4,
    kv_heads=2,
    head_dim=48,
    mlp_dim=768,
    pattern=(GLOBAL,),
    window=None,
  ),
}

_SIGLIP_B = SiglipConfig(
  image_size=224,
  patch_size=16,
  width=768,
  layers=12,
  heads=12,
  mlp_dim=3072,
)
_SIGLIP_SO400M = SiglipConfig(
  image_size=224,
  patch_size=14,
  width=1152,
  layers=27,
  heads=16,
  mlp_dim=4304,
)

SIGLIP_SIZES: dict[str, SiglipConfig] = {
  'b16_224': _SIGLIP_B,
  'b16_256': dataclasses.replace(_SIGLIP_B, image_size=256),
  'l16_256': dataclasses.replace(
    _SIGLIP_B, image_size=256, width=1024, layers=24, heads=16, mlp_dim=4096
  ),
  'so400m14_224': _SIGLIP_SO400M,
  'so400m16_256': dataclasses.replace(
    _SIGLIP_SO400M, image_size=256, patch_size=16
  ),
  'tiny': SiglipConfig(
    image_size=32,
    patch_size=8,
    width=128,
    layers=4,
    heads=4,
    mlp_dim=512,
  ),
}

VAE_SIZES: dict[str, VAEConfig] = {
  'sd': VAEConfig(
    latent_channels=4,
    widths=(128, 256, 512, 512),
    latent_scale=1 / 0.18215,
  ),
  'mar_kl16': VAEConfig(
    latent_channels=16,
    widths=(128, 128, 256, 256, 512),
    attention_levels=(4,),
    latent_scale=1 / 0.2325,
  ),
  'tiny': VAEConfig(
    latent_channels=16,
    widths=(128,),
    encoder_blocks=0,
    decoder_blocks=1,
    patch_size=4,
    mid_attention=False,
    quant_convs=False,
  ),
}
