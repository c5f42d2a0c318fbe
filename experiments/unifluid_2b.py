"""UniFluid 2B (arXiv 2503.13436): Gemma-2 2B, 256 px, batch 2048, 1 M steps.

Known of the paper's recipe: batch, AdamW, learning rate 1e-4, steps, start from
Gemma 2, a VAE of the kind of Stable Diffusion's, SigLIP, random order, a
per-token diffusion head. Chosen by us where the paper is silent: the head's
size, lambda, warm-up, the share of the tasks, MAR's diffusion objective.

The paper's data (WebLI) is not public: the sources below are COCO captions as
TFDS prepares them. Gemma, SigLIP and the VAE are folders that are downloaded
(unifluid_jax/weights/README.md), here under weights/; the tokenizer is Gemma's
`tokenizer.model`.

    python -m unifluid_jax.train --config=experiments/unifluid_2b.py \
      --workdir=gs://BUCKET/unifluid_2b --config.tokenizer.path=tokenizer.model

What a mesh axis does not divide is not split over it: widths of 1152 divide by
128, so 256 chips are best told --config.mesh.data=2. Where arithmetic binds,
--config.model.remat=dots is faster; on v5e --config.training.grad_accum_steps=2
makes room for it (plans/README.md).
"""

import ml_collections

from experiments import arguments
from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes

# What no checkpoint has: it starts fresh.
NEW = ('^connector', '^(token|mask|source)_', '_positions$', '^head/')

COCO = {
  'kind': 'tfds',
  'path': 'coco_captions/2014:1.1.0',
  'features': {'image': 'image', 'text': 'captions/text'},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The recipe, or with `gemma=`, `encoder=`, `vae=` of `models.sizes`.

  `:tiny` is two steps for tests.
  """
  values, is_tiny = arguments.parse(
    arg,
    {
      'gemma': sizes.GEMMA_SIZES,
      'encoder': sizes.SIGLIP_SIZES,
      'vae': sizes.VAE_SIZES,
    },
    gemma='gemma2_2b',
    encoder='so400m16_256',
    vae='sd',
  )
  gemma = sizes.GEMMA_SIZES[values['gemma']]
  encoder = sizes.SIGLIP_SIZES[values['encoder']]
  vae = sizes.VAE_SIZES[values['vae']]
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.tokenizer = {'path': 'tokenizer.model'}
  config.data = {
    'image_size': 256,
    'sources': {
      'text_to_image': COCO | {'task': 'text_to_image', 'weight': 0.5},
      'captioning': COCO | {'task': 'captioning', 'weight': 0.5},
    },
    'max_text': 124,
    'examples': 2048,
    'batch_rows': 2048,
    'packing_windows': 256,
    'row_capacity': {
      'length': 384,
      'text_targets': 128,
      'understanding_images': 1,
      'generated_images': 1,
    },
    'num_workers': 8,
  }
  config.vae = config_lib.to_dict(vae)
  config.vae_training = {
    'steps': 1,
    'batch': 256,
    'sources': {
      'images': COCO | {'task': 'text_to_image', 'weight': 1.0},
    },
    'optimizer': {'learning_rate': 1e-4},
  }
  config.model = {
    'gemma': config_lib.to_dict(gemma),
    'encoder': config_lib.to_dict(encoder),
    'head': {'width': 1536, 'depth': 6, 'remat': 'full'},
    'objective': 'ddpm',
    # A token is 16 x 16 pixels.
    'patch': 16 // vae.stride,
    'dtype': 'bfloat16',
    'remat': 'sublayers',
  }
  config.training = {
    'steps': 1_000_000,
    'text_weight': 0.005,
    'log_every': 100,
    'checkpoint': {'every': 5000, 'keep': 3},
  }
  config.optimizer = {
    'learning_rate': 1e-4,
    'schedule': 'constant',
    'warmup': 10_000,
  }
  config.init = {
    'backbone': 'weights/gemma-2-2b',
    'encoder': 'weights/siglip2-so400m-patch16-256',
    'vae': 'weights/sd-vae-ft-ema',
    'frozen': ('^encoder/',),
    'new': NEW,
  }
  config.sampling = {
    'steps': None,
    'solver': 'ancestral',
    'head_steps': 100,
    'guidance': {'scale': 3.0, 'schedule': 'linear'},
  }
  return arguments.finish(config, is_tiny)
