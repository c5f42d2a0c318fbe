"""Shows samples of a task of the embedded data set.

  python -m unifluid_jax.show --task=editing --split=train --out=samples.png

writes a sheet of pictures, and the texts to standard output.
"""

import sys

import numpy as np
from absl import flags
from PIL import Image

from unifluid_jax import cli
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks import make_task
from unifluid_jax.data.sheet import describe, draw_sheet
from unifluid_jax.errors import UserError

_TASK = flags.DEFINE_string('task', 'text_to_image', 'Name of the task.')
_SPLIT = flags.DEFINE_string('split', 'train', 'Split of the data set.')
_INDEX = flags.DEFINE_integer('index', 0, 'First sample.', lower_bound=0)
_COUNT = flags.DEFINE_integer('count', 8, 'How many samples.', lower_bound=1)
_OUT = flags.DEFINE_string('out', 'samples.png', 'Where to write the sheet.')
_CONCEPTS = flags.DEFINE_string('concepts', 'quickstart', 'Set of concepts.')
_IMAGE_SIZE = flags.DEFINE_integer('image_size', 32, 'Side in pixels.')
_AUGMENT = flags.DEFINE_bool('augment', False, 'Vary samples as training does.')
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Of what a record leaves open.', lower_bound=0
)


def show() -> None:
  """Writes the sheet and the texts that the flags ask for."""
  config = EmojiConfig(_CONCEPTS.value, image_size=_IMAGE_SIZE.value)
  task = make_task(_TASK.value, config, _SPLIT.value)
  indices = range(_INDEX.value, min(_INDEX.value + _COUNT.value, len(task)))
  if not indices:
    raise UserError(
      f'--index={_INDEX.value} is beyond the {len(task)} records of the task '
      f'{task.name!r}, split {task.split!r}.'
    )
  examples = [
    task.build(task[i], np.random.default_rng((_SEED.value, i)), _AUGMENT.value)
    for i in indices
  ]
  try:
    Image.fromarray(draw_sheet(examples)).save(_OUT.value)
  except (OSError, ValueError) as error:
    raise UserError(
      f'--out={_OUT.value} cannot be written: {error}.'
    ) from error
  for i, example in zip(indices, examples, strict=True):
    sys.stdout.write(f'{i}: {describe(example)}\n')


if __name__ == '__main__':
  cli.run(show)
