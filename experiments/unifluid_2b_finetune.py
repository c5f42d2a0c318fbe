"""Fine-tunes a UniFluid 2B on eight chips of v5e (2x4), on a folder of images.

It starts from the averaged weights of another run, `source=WORKDIR`, and reads
a JSONL file of images and captions, `data=FILE` (README, "Train on your own
images"). Batch 64 and a tenth of the learning rate; all but the image encoder
is trained.

    python -m unifluid_jax.train --workdir=runs/mine \
      --config=experiments/unifluid_2b_finetune.py:source=runs/unifluid_2b
"""

import ml_collections

from experiments import arguments, unifluid_2b


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config with `source=WORKDIR`, `data=FILE`; `:tiny` for tests."""
  values, is_tiny = arguments.parse(
    arg, source='runs/unifluid_2b', data='images/train.jsonl'
  )
  config = unifluid_2b.get_config()
  config.data.update(
    batch_rows=64, examples=64, packing_windows=8, num_workers=4
  )
  folder = {'kind': 'folder', 'path': values['data']}
  config.data.sources = {
    task: folder | {'task': task, 'weight': 0.5}
    for task in ('text_to_image', 'captioning')
  }
  config.training.update(steps=20_000, log_every=50)
  config.training.checkpoint.every = 1000
  config.optimizer.update(learning_rate=1e-5, warmup=500)
  config.init.update(
    workdir=values['source'],
    parameters=('',),
    backbone='',
    encoder='',
    new=(),
    dtype=('^encoder/=bfloat16',),
  )
  if is_tiny:
    # A run to start from is not tiny.
    config.init.update(workdir='', parameters=())
  return arguments.finish(config, is_tiny)
