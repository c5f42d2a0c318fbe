"""UniFluid that starts from PaliGemma: it captions and answers at once.

Decoder, encoder and connector come from one PaliGemma, so that understanding
works from the first step on; what writes images is new and is trained here, on
the embedded emoji. `version=2` is PaliGemma 2 3B, `version=1` PaliGemma 3B,
both reading at 224 px and writing at 256. One accelerator of 80 GB, or a v5e-8.

    python -m unifluid_jax.train --config=experiments/paligemma.py \
      --workdir=runs/paligemma
"""

import ml_collections

from experiments import arguments, quickstart, unifluid_2b
from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes

_GEMMA = {1: 'gemma1_2b', 2: 'gemma2_2b'}
_FOLDER = {1: 'paligemma-3b-pt-224', 2: 'paligemma2-3b-pt-224'}
# 256,000 of Gemma, 1024 <loc>, 128 <seg>, 64 of padding in transformers' files.
_VOCABULARY = 257_216


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The start from PaliGemma; `:version=1`, `:tiny` for tests."""
  values, is_tiny = arguments.parse(arg, {'version': _FOLDER}, version=2)
  folder = f'weights/{_FOLDER[values["version"]]}'
  gemma = config_lib.to_dict(sizes.GEMMA_SIZES[_GEMMA[values['version']]])
  config = unifluid_2b.get_config('encoder=so400m14_224')
  config.model.gemma = gemma | {'vocab_size': _VOCABULARY}
  config.tokenizer = {'path': f'{folder}/tokenizer.model'}
  config.data.sources = quickstart.get_config().data.sources
  config.data.update(
    batch_rows=8, examples=8, packing_windows=2, max_text=96, num_workers=2
  )
  # An edit is the longest: 256 soft tokens, 96 of text, 256 of the result; the
  # rest of the row is for a short example beside it.
  config.data.row_capacity.update(
    length=640, understanding_images=2, generated_images=2
  )
  config.init.update(
    backbone=folder,
    encoder=folder,
    frozen=('^encoder/',),
    new=('^(token|mask|source)_', '_positions$', '^head/'),
    dtype=('^encoder/=bfloat16',),
  )
  config.training.update(steps=20_000, text_weight=0.005)
  config.optimizer.update(learning_rate=2e-5, warmup=500)
  return arguments.finish(config, is_tiny)
