"""A folder of captioned images, for two CPU cores.

    python -m unifluid_jax.index photos
    bash launch/quickstart.sh \\
      experiments/own_images.py:path=photos/captions.jsonl,size=32,steps=3000

The quickstart's model learns to draw an image from its caption, and to write
the caption of an image. A tenth of the images is held out of training; the log
has their losses beside those of training, and the report shows what the model
makes of them. The README, "Train on your own images", goes through all of it.
"""

import ml_collections

from experiments import arguments, quickstart
from unifluid_jax.utils.errors import UserError

_PIXELS = 8
"""Side of the square that makes a token; see `vae` and `model.patch`."""


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests.

  Args:
    arg: `path=` the JSONL file, `size=` the side in pixels that images are cut
      and resized to, a multiple of 8, and `steps=` of UniFluid's training,
      separated by commas. `tiny` reads the folder too if there is a path, else
      the embedded data.
  """
  values, is_tiny = arguments.parse(arg, path='', size=32, steps=3000)
  path, size, steps = values['path'], values['size'], values['steps']
  if size < _PIXELS or size % _PIXELS:
    raise UserError(
      f'config argument size is {size}; it must be a multiple of {_PIXELS}'
    )
  config = quickstart.get_config()
  folder = {'kind': 'folder', 'path': path or 'photos/captions.jsonl'}
  draw = folder | {'task': 'text_to_image', 'weight': 0.5}
  read = folder | {'task': 'captioning', 'weight': 0.5}
  config.data.sources = {'draw': draw, 'read': read}
  config.data.update(image_size=size, heldout=0.1, examples=32)
  # Set from the captions when training starts.
  config.data.max_text = 'auto'
  config.data.row_capacity = {
    'length': 'auto',
    'text_targets': 'auto',
    'understanding_images': 4,
    'generated_images': 4,
  }
  config.model.encoder.image_size = size
  config.model.source_tokens = False
  config.vae_training.sources = {'draw': draw}
  config.training.update(steps=steps, heldout_every=100)
  config.evaluation = {'samples': 1, 'prompts': 250, 'captions': 250}
  result = arguments.finish(config, is_tiny)
  if is_tiny and path:
    whole = arguments.finish(config, is_tiny=False)
    result.data.sources = whole.data.sources
    result.vae_training.sources = whole.vae_training.sources
  return result
