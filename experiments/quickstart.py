"""All four tasks on 66 emoji concepts at 32 px, in minutes on two CPU cores."""

import ml_collections

from experiments import arguments
from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes

SCENE_QUESTIONS = ('count', 'count_of', 'at', 'where', 'relation')


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.tokenizer = {'vocab_size': 1024}

  def emoji(task, weight, *kinds, concepts=''):
    return {
      'kind': 'emoji',
      'task': task,
      'weight': weight,
      'kinds': kinds,
      'concepts': concepts,
    }

  config.data = {
    'image_size': 32,
    'concepts': 'quickstart',
    'artists': ('noto', 'fluent', 'twemoji'),
    'sources': {
      'text_to_image': emoji('text_to_image', 0.25),
      'captioning': emoji('captioning', 0.16),
      'vqa_identity': emoji('vqa', 0.12, 'name', 'kind', 'category'),
      # An artist's hand shows in many drawings, not in those of 66 concepts.
      'vqa_artist': emoji('vqa', 0.16, 'artist', concepts='untoned'),
      'vqa_background': emoji('vqa', 0.04, 'background'),
      'vqa_yes_no': emoji('vqa', 0.13, 'is_name', 'is_category'),
      'vqa_scene': emoji('vqa', 0.02, *SCENE_QUESTIONS),
      'vqa': emoji('vqa', 0.01),
      'editing': emoji('editing', 0.01),
      'editing_exact': emoji('editing', 0.1, 'tone', 'background', 'flip'),
    },
    'max_text': 40,
    'examples': 40,
    'batch_rows': 8,
    'packing_windows': 1,
    'row_capacity': {
      'length': 144,
      'text_targets': 24,
      'understanding_images': 4,
      'generated_images': 3,
      'source_images': 2,
    },
  }
  config.vae = {
    'latent_channels': 14,
    'widths': (64,),
    'patch_size': 4,
    'encoder_blocks': 0,
    'decoder_blocks': 1,
    'mid_attention': False,
    'quant_convs': False,
    'shortcuts': True,
  }
  config.vae_training = {
    'steps': 400,
    'batch': 32,
    'sources': {
      'picture': {
        'kind': 'emoji',
        'task': 'picture',
        'weight': 1.0,
        'concepts': 'all',
      }
    },
    'optimizer': {
      'learning_rate': 6e-3,
      'schedule': 'cosine',
      'warmup': 50,
      'b2': 0.99,
      'weight_decay': 0.01,
      'ema': 0.998,
    },
    'loss': {'kl_weight': 1e-3},
    'checkpoint': {'every': 100},
  }
  config.model = {
    'gemma': config_lib.to_dict(sizes.GEMMA_SIZES['tiny'])
    | {'vocab_size': 1024, 'layers': 4, 'kv_heads': 4, 'mlp_dim': 512}
    # A cap of 50 does nothing in so short a run but take its time.
    | {'attention_softcap': None},
    # The whole side: half of it is enough to tell what a drawing shows, but
    # not who drew it.
    'encoder': config_lib.to_dict(sizes.SIGLIP_SIZES['tiny'])
    | {'image_size': 32, 'patch_size': 8, 'layers': 2},
    'head': {'width': 256, 'depth': 3, 'unroll': 3},
    'objective': 'flow',
    'source_tokens': True,
    'unroll': 4,
  }
  config.training = {
    'steps': 2000,
    'text_weight': 0.4,
    'checkpoint': {'every': 500},
  }
  config.optimizer = {
    # Learns what texts say about images in a third of AdamW's steps.
    'rule': 'muon',
    'learning_rate': 1.5e-3,
    'schedule': 'cosine',
    'warmup': 100,
    'b2': 0.98,
    'ema': 0.998,
    'no_decay': (),
    # Fresh linear maps and a small MLP learn faster than attention does.
    'lr_multipliers': {'^(head|token|mask|known|target|source)': 3.0},
  }
  config.sampling = {
    'solver': 'euler',
    'head_steps': 20,
    'guidance': {'scale': 2.0},
    'temperature': 0.8,
  }
  config.edit_sampling = {
    'solver': 'euler',
    'head_steps': 20,
    'guidance': {'scale': 1.2},
    'temperature': 0.0,
  }
  config.evaluation = {
    'samples': 32,
    'targets': {
      'vae_psnr_heldout_db': 27.0,
      't2i_train_nn_concept': 0.95,
      't2i_heldout_nn_concept': 0.65,
      't2i_train_psnr_db': 20.0,
      'caption_train_exact': 0.95,
      'caption_heldout_exact': 0.85,
      'vqa_category_heldout': 0.8,
      'edit_exact_nn': 0.7,
    },
  }
  return arguments.finish(config, is_tiny)
