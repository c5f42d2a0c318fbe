"""Numbers that no run could use are refused when the config is read."""

import pytest

from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.utils.errors import UserError


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('seed', -1, 'config.seed is -1; it must be at least 0'),
    ('seed', 2**32, 'config.seed is 4294967296; it must be .* less than'),
    ('optimizer.ema', 1.5, 'optimizer.ema is 1.5; it must be at least 0, less'),
    ('optimizer.learning_rate', -1.0, 'optimizer.learning_rate is -1.0'),
    (
      'optimizer.grad_clip_norm',
      0.0,
      'optimizer.grad_clip_norm is 0.0; it must be more than 0',
    ),
    ('optimizer.warmup', -1, 'optimizer.warmup is -1'),
    (
      'optimizer.no_decay',
      ('(',),
      r"has '\(', which is not a valid regular expr",
    ),
    (
      'optimizer.lr_multipliers',
      {'(': 2.0},
      'is not a valid regular expression',
    ),
    ('model.gemma.kv_heads', 0, 'Gemma.kv_heads is 0; it must be at least 1'),
    ('model.encoder.heads', 0, 'SigLIP.heads is 0; it must be at least 1'),
    ('model.encoder.patch_size', 0, 'SigLIP.patch_size is 0'),
    ('model.head.depth', 0, 'model.head.depth is 0; it must be at least 1'),
    ('model.head.remat', 'half', "model.head.remat is 'half'; it must be one"),
    ('training.order', 'foo', "training.order is 'foo'; it must be one of"),
    ('training.order', 'anneal', "'anneal' needs a first and a last step"),
    ('training.anneal_steps', (1, 2), "'random' and training.anneal_steps is"),
    ('vae_training.loss.kl_weight', -1.0, 'loss.kl_weight is -1'),
    ('vae_training.loss.kl_weight', float('nan'), 'loss.kl_weight is nan'),
    ('model.decoding', 'foo', "model.decoding is 'foo'; it must be one of"),
    ('vae.latent_scale', 0.0, 'vae.latent_scale is 0'),
    ('training.text_weight', float('nan'), 'training.text_weight is nan'),
    (
      'data.packing_windows',
      0,
      'data.packing_windows is 0; it must be at least 1',
    ),
    ('data.examples', 0, 'data.examples is 0; it must be at least 1'),
    ('data.num_workers', -1, 'data.num_workers is -1; it must be at least 0'),
    (
      'data.cond_drop_prob',
      1.5,
      'data.cond_drop_prob is 1.5; it must be in 0..1',
    ),
    ('data.heldout', 1.0, 'data.heldout is 1.0; it must be at least 0, less'),
    ('data.heldout', -0.1, 'data.heldout is -0.1; it must be at least 0'),
    ('training.heldout_every', 0, 'training.heldout_every is 0'),
    (
      'data.row_capacity.length',
      0,
      'data.row_capacity.length is 0; it must be at least 1',
    ),
    (
      'data.row_capacity.text_targets',
      -1,
      'data.row_capacity.text_targets is -1',
    ),
    ('model.unroll', 0, 'model.unroll is 0; it must be at least 1'),
    (
      'training.diffusion_batch_mul',
      0,
      'training.diffusion_batch_mul is 0; it must be at least 1',
    ),
    ('training.log_every', 0, 'training.log_every is 0'),
    ('training.checkpoint.every', 0, 'checkpoint.every is 0'),
    ('training.checkpoint.keep', 0, 'checkpoint.keep is 0'),
    ('vae_training.batch', 0, 'vae_training.batch is 0'),
    ('vae_training.log_every', 0, 'vae_training.log_every is 0'),
    ('vae_training.checkpoint.every', 0, 'checkpoint.every is 0'),
    ('vae_training.statistics_batches', 0, 'statistics_batches is 0'),
    ('vae.latent_shift', float('inf'), 'vae.latent_shift is inf'),
    (
      'data.image_size',
      2**31 - 8,
      'data.image_size .*; it must be at most 4096',
    ),
    ('data.examples', 10**9, 'data.examples is 1000000000; it must be at most'),
    (
      'data.batch_rows',
      10**9,
      'data.batch_rows is 1000000000; it must be at most',
    ),
    (
      'data.num_workers',
      10**4,
      'data.num_workers is 10000; it must be at most',
    ),
    (
      'data.row_capacity.length',
      10**8,
      'data.row_capacity.length is .*; it must be at most',
    ),
    (
      'data.row_capacity.generated_images',
      10**8,
      'data.row_capacity.generated_images is .* most',
    ),
    ('vae_training.batch', 10**8, 'vae_training.batch is .*; it must be at mo'),
    (
      'model.gemma.vocab_size',
      2**30,
      'Gemma.vocab_size is .*; it must be at m',
    ),
    (
      'model.gemma.layers',
      10**6,
      'Gemma.layers is 1000000; it must be at most',
    ),
    ('model.encoder.image_size', 10**6, 'SigLIP.image_size is .* at most 4096'),
    (
      'model.head.width',
      10**6,
      'model.head.width is 1000000; it must be at mo',
    ),
    ('vae.widths', (8,) * 99, r'vae.widths is \(8, .*, ...\); .* 12 levels'),
    ('vae.widths', (2**20,), r'vae.widths is .* at most 65536 channels'),
    ('tokenizer.vocab_size', 2**30, 'tokenizer.vocab_size is .* at most'),
    ('text_sampling.max_tokens', 10**6, 'max_tokens is .*; it must be at most'),
    ('sampling.head_steps', 10**6, 'head_steps is 1000000; it must be at most'),
    ('training.steps', 10**30, 'config.training.steps is out of range'),
    (
      'training.anneal_steps',
      (0, 2**31),
      r'config.training.anneal_steps\[1\] is out of ra',
    ),
    ('optimizer.warmup', -(2**40), 'config.optimizer.warmup is out of range'),
    ('vae.groups', 3, r'vae.widths is \[8\]; .* a multiple of vae.groups = 3'),
    ('vae.widths', (), r'vae.widths is \[\]; it must be one width or more'),
    ('text_sampling.max_tokens', 0, 'text_sampling.max_tokens is 0'),
    ('tokenizer.vocab_size', 321, 'tokenizer.vocab_size is 321 and model.gemm'),
    ('training.balance', 'gradnrom', "training.balance is 'gradnrom'"),
    (
      'training.grad_accum_steps',
      0,
      'training.grad_accum_steps is 0; it must be at least',
    ),
    ('model.remat', 'half', "^model.remat is 'half'; it must be one of"),
    ('model.dtype', 'floot', "model.dtype is 'floot'; it must be one of"),
    ('model.objective', 'flo', "objective 'flo' is unknown"),
    (
      'sampling.solver',
      'ancestrl',
      "^sampling: diffusion solver 'ancestrl'",
    ),
    ('sampling.steps', 99, '^sampling: 99 decoding steps; an image'),
    ('edit_sampling.steps', 99, '^edit_sampling: 99 decoding steps; an image'),
    ('edit_sampling.solver', 'ancestrl', '^edit_sampling: diffusion solver'),
    (
      'data.row_capacity.source_images',
      2,
      'data.row_capacity.source_images is 2, but',
    ),
    ('evaluation.prompts', 0, 'evaluation.prompts is 0'),
  ],
)
def test_a_value_that_cannot_be(key, value, message):
  config = tiny.get_config()
  *path, last = key.split('.')
  section = config
  for name in path:
    if name not in section:
      section[name] = {}
    section = section[name]
  section[last] = value
  with pytest.raises(UserError, match=message):
    build(Experiment, config)


@pytest.mark.parametrize('steps', [(2, 1), (3, 3), (-1, 2)])
def test_a_fade_that_does_not_rise_is_refused(steps):
  config = tiny.get_config()
  config.training.update(order='anneal', anneal_steps=steps)
  with pytest.raises(UserError, match='must be two rising steps'):
    build(Experiment, config)


def test_how_a_model_is_computed_does_not_change_its_checkpoints(letters):
  config = tiny.get_config()
  config.model.update(
    dtype='bfloat16', fused_attention=False, remat='full', unroll=2
  )
  first = build(Experiment, tiny.get_config()).identity(letters.fingerprint)
  assert build(Experiment, config).identity(letters.fingerprint) == first
  config.model.decoding = 'masked'
  assert build(Experiment, config).identity(letters.fingerprint) != first


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'kind': 'emjoi'}, "'mine' has kind 'emjoi'; it must be one of emoji, f"),
    (
      {'path': 'my.jsonl'},
      "'mine' has path 'my.jsonl', which sources of kind 'emoj",
    ),
    ({'kind': 'folder', 'split': 'cell'}, "'mine' has split 'cell'; a folder"),
    ({'kind': 'folder', 'features': {'image': 'a'}}, "'mine' has features "),
    ({'features': {'image': ''}, 'data_dir': '', 'split': 'cell'}, None),
  ],
)
def test_what_a_source_does_not_look_at(change, message):
  config = tiny.get_config()
  source = {'kind': 'emoji', 'task': 'captioning', 'weight': 1.0} | change
  config.data.sources = {'mine': source}
  experiment = build(Experiment, config)  # As an old run's is still read.
  if message is None:
    assert make_tasks(experiment, experiment.data.sources)
    return
  with pytest.raises(UserError, match=message):
    make_tasks(experiment, experiment.data.sources)
