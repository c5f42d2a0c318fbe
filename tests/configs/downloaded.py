"""A config of the README, in the shapes of the tiny files in its weights/.

`shapes.json` in the current folder has the shapes.
"""

import json
import pathlib

import ml_collections

from experiments import tiny


def shrink(full: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Keeps what the config loads, and takes the shapes of those files."""
  config = tiny.shrink(full)
  config.init = full.init
  config.tokenizer = full.tokenizer
  shapes = json.loads(pathlib.Path('shapes.json').read_text())
  gemma = full.model.gemma
  generation = 1 + gemma.post_norms + gemma.qk_norm
  both = '+' if full.init.backbone == full.init.encoder else ''
  config.model.gemma = shapes[f'gemma {generation}{both}']
  config.model.encoder = shapes['encoder']
  config.vae = shapes[f'vae {full.vae.latent_channels}']
  config.data.image_size = config.model.encoder['image_size']
  config.model.patch = full.model.patch
  return config
