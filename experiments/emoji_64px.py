"""All emoji concepts at 64 px, for one accelerator with 16 GiB.

The quickstart's recipe on the whole embedded data set: 64 image tokens of 16
dimensions, a decoder of 50 M parameters, bf16. Not trained by us yet: the
batch and the number of steps are estimates. By plan (`unifluid_jax.plan
--topology=v5e:1x1`) it takes 9.8 GiB.

    bash launch/quickstart.sh experiments/emoji_64px.py runs/emoji_64px
"""

import ml_collections

from experiments import arguments, quickstart
from unifluid_jax.config import builder as config_lib
from unifluid_jax.data.emoji.catalog import ARTISTS
from unifluid_jax.models import sizes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = quickstart.get_config()
  config.tokenizer.vocab_size = 4096
  config.data.update(
    image_size=64,
    concepts='all',
    artists=ARTISTS,
    examples=680,
    batch_rows=128,
    packing_windows=8,
  )
  config.data.row_capacity = {
    'length': 512,
    'text_targets': 40,
    'understanding_images': 4,
    'generated_images': 4,
    'source_images': 2,
  }
  config.vae = {
    'latent_channels': 16,
    'widths': (128, 256),
    'patch_size': 4,
    'quant_convs': False,
  }
  config.vae_training.update(steps=50_000, batch=128)
  config.vae_training.optimizer.update(learning_rate=5e-4, warmup=1000)
  gemma = config_lib.to_dict(sizes.GEMMA_SIZES['tiny'])
  gemma |= {'vocab_size': 4096, 'width': 512, 'layers': 12, 'mlp_dim': 2048}
  gemma |= {'heads': 8, 'kv_heads': 4, 'head_dim': 64}
  encoder = config_lib.to_dict(sizes.SIGLIP_SIZES['tiny'])
  encoder |= {'image_size': 64, 'width': 384, 'layers': 8, 'mlp_dim': 1536}
  encoder['heads'] = 6
  config.model.update(
    gemma=gemma, encoder=encoder, patch=1, dtype='bfloat16', unroll=1
  )
  # Otherwise the backward pass would keep 129 GiB.
  config.model.remat = 'sublayers'
  config.model.head = {'width': 768, 'depth': 4, 'remat': 'full'}
  config.training.update(steps=100_000, log_every=100, grad_accum_steps=2)
  config.training.checkpoint = {'every': 2000}
  config.optimizer.update(learning_rate=5e-4, warmup=2000, ema=0.9999)
  config.evaluation.samples = 4  # there are hundreds of held-out prompts
  return arguments.finish(config, is_tiny)
