"""The small variant of any config: the same recipe, two steps on a laptop."""

import ml_collections

from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Swaps a config's sizes and data for tiny ones, and keeps its recipe.

  Orders, losses, weights, schedules, frozen parts and shares of the tasks stay
  as they are; the tasks read the embedded data.
  """
  config = ml_collections.ConfigDict(config.to_dict())
  vocabulary = 512
  config.tokenizer = {'vocab_size': vocabulary}
  config.data.image_size = 32
  config.data.concepts = 'quickstart'
  config.data.sources = {
    name: {
      'kind': 'emoji',
      'task': source.task,
      'weight': source.weight,
      'kinds': source.get('kinds', ()),
    }
    for name, source in config.data.sources.items()
  }
  config.data.update(batch_rows=2, examples=4, packing_windows=2)
  with config.data.ignore_type():  # It may be 'auto'.
    config.data.max_text = 48
  config.data.num_workers = 0  # Each takes seconds to start.
  config.data.row_capacity = {
    'length': 128,
    'text_targets': 32,
    'understanding_images': 4,
    'generated_images': 4,
    'source_images': 2 * config.model.get('source_tokens', False),
  }
  config.vae = {
    'latent_channels': 4,
    'widths': (16,),
    'groups': 8,
    'patch_size': 4,
    'encoder_blocks': 1,
    'decoder_blocks': 1,
    'mid_attention': False,
    'quant_convs': False,
  }
  config.vae_training.update(steps=2, batch=4, statistics_batches=1)
  config.vae_training.sources = {
    'picture': {
      'kind': 'emoji',
      'task': 'picture',
      'weight': 1.0,
      'concepts': 'quickstart',
    }
  }
  gemma = config_lib.to_dict(sizes.GEMMA_SIZES['tiny'])
  gemma |= {'vocab_size': vocabulary, 'width': 32, 'layers': 2, 'mlp_dim': 64}
  gemma |= {'heads': 2, 'kv_heads': 1, 'head_dim': 16}
  encoder = config_lib.to_dict(sizes.SIGLIP_SIZES['tiny'])
  encoder |= {'width': 32, 'layers': 1, 'heads': 2, 'mlp_dim': 64}
  config.model.update(gemma=gemma, encoder=encoder, dtype='float32', unroll=1)
  config.model.head = {'width': 32, 'depth': 2}
  config.model.patch = 2
  config.training.update(steps=2, log_every=1)
  for section in ('sampling', 'edit_sampling'):
    if config.get(section, {}).get('steps'):
      config[section].steps = 4
  if 'init' in config:
    # Published weights are not tiny.
    config.init.update(backbone='', encoder='', vae='')
  config.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1}
  config.evaluation = {
    'samples': 1,
    'prompts': 4,
    'captions': 4,
    'questions': 1,
    'edits': 8,
  }
  return config
