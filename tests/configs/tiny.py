"""The smallest experiment: it starts, compiles and trains in seconds."""

import ml_collections

from experiments import arguments


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config.

  Args:
    arg: A JSONL file to train text-to-image on, instead of the embedded data.
  """
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.tokenizer = {'vocab_size': 320}
  emoji = {
    'picture': {'kind': 'emoji', 'task': 'picture', 'weight': 1.0},
    'text_to_image': {'kind': 'emoji', 'task': 'text_to_image', 'weight': 1.0},
    'captioning': {'kind': 'emoji', 'task': 'captioning', 'weight': 1.0},
  }
  folder = {
    'kind': 'folder',
    'task': 'text_to_image',
    'path': arg or '',
    'weight': 1.0,
  }
  picture = {'picture': folder if arg else emoji.pop('picture')}
  config.data = {
    'image_size': 16,
    'sources': {'text_to_image': folder} if arg else emoji,
    'max_text': 96,
    'examples': 4,
    'batch_rows': 2,
    'packing_windows': 1,
    'row_capacity': {
      'length': 128,
      'text_targets': 64,
      'understanding_images': 2,
      'generated_images': 2,
    },
  }
  config.vae = {
    'latent_channels': 2,
    'widths': (8,),
    'patch_size': 4,
    'encoder_blocks': 0,
    'decoder_blocks': 0,
    'groups': 4,
    'mid_attention': False,
    'quant_convs': False,
  }
  config.vae_training = {
    'steps': 4,
    'batch': 4,
    'sources': picture,
    'optimizer': {'learning_rate': 1e-3},
    'log_every': 1,
    'checkpoint': {'every': 2},
    'statistics_batches': 2,
  }
  config.model = {
    'gemma': {
      'vocab_size': 320,
      'width': 16,
      'layers': 1,
      'heads': 2,
      'kv_heads': 1,
      'head_dim': 8,
      'mlp_dim': 16,
    },
    'encoder': {
      'image_size': 8,
      'patch_size': 4,
      'width': 16,
      'layers': 1,
      'heads': 2,
      'mlp_dim': 16,
    },
    'head': {'width': 16, 'depth': 1},
  }
  config.training = {
    'steps': 6,
    'text_weight': 0.3,
    'log_every': 1,
    'checkpoint': {'every': 2},
  }
  config.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'slices': -1}
  config.optimizer = {'learning_rate': 1e-3}
  config.sampling = {'head_steps': 2, 'guidance': {'scale': 2.0}}
  config.edit_sampling = {'head_steps': 2}
  config.text_sampling = {'max_tokens': 4}
  config.evaluation = {
    'samples': 1,
    'prompts': 4,
    'captions': 4,
    'questions': 1,
    'edits': 8,
  }
  return arguments.finish(config, False)
