"""Shows samples of a source of a config, as training reads them.

  python -m unifluid_jax.show --config=experiments/quickstart.py \
      --source=editing --out=samples.png

writes a sheet of pictures, and the texts to standard output. Of the embedded
data, --config.data.sources.editing.split=cell shows what is held out.
"""

import os
import pathlib
import sys

import numpy as np
from absl import flags
from PIL import Image

from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.sheet import describe, draw_sheet
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.host_memory import check_host_memory
from unifluid_jax.utils.paths import local_path

_CONFIG = entry_point.define_config_flag()
_SOURCE = flags.DEFINE_string(
  'source',
  None,
  'Name in data.sources, or, if none has it, in vae_training.sources.',
)
_INDEX = flags.DEFINE_integer('index', 0, 'First sample.', lower_bound=0)
_COUNT = flags.DEFINE_integer('count', 8, 'How many samples.', lower_bound=1)
_OUT = flags.DEFINE_string('out', 'samples.png', 'Where to write the sheet.')
_AUGMENT = flags.DEFINE_bool('augment', False, 'Vary samples as training does.')
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Of what a record leaves open.', lower_bound=0
)


def show() -> None:
  """Writes the sheet and prints the texts."""
  out = local_path(_OUT.value, f'--out={_OUT.value}')
  _check_out(out)
  experiment = build(Experiment, entry_point.require(_CONFIG))
  sources = {**experiment.vae_training.sources, **experiment.data.sources}
  name = entry_point.require(_SOURCE)
  if name not in sources:
    raise UserError(
      f'the config has no source {name!r}; choose one of {", ".join(sources)}'
    )
  task = make_tasks(experiment, {name: sources[name]})[name]
  indices = range(_INDEX.value, min(_INDEX.value + _COUNT.value, len(task)))
  if not indices:
    raise UserError(
      f'--index={_INDEX.value} is beyond the {len(task)} records of the source '
      f'{name!r}'
    )
  size = experiment.data.image_size
  check_host_memory(
    {'--count, data.image_size': 3 * len(indices) * size**2}, 'the sheet'
  )
  examples = [
    task.build(task[i], np.random.default_rng((_SEED.value, i)), _AUGMENT.value)
    for i in indices
  ]
  try:
    Image.fromarray(draw_sheet(examples)).save(out)
  except (OSError, ValueError) as error:
    raise UserError(
      f'--out={_OUT.value} cannot be written: {error}.'
    ) from error
  for i, example in zip(indices, examples, strict=True):
    sys.stdout.write(f'{i}: {describe(example)}\n')


def _check_out(out: pathlib.Path) -> None:
  """Checks that the sheet can be written, before any work."""
  kind = Image.registered_extensions().get(out.suffix.lower())
  if kind not in Image.SAVE:
    raise UserError(
      f'--out={_OUT.value} is not the name of an image file; end it in .png'
    )
  exists = os.path.lexists(out)
  try:
    out.open('ab').close()
    if not exists:
      out.unlink()
  except OSError as error:
    raise UserError(
      f'--out={_OUT.value} cannot be written: {error.strerror}; name a file in '
      'a folder that can be written'
    ) from error


if __name__ == '__main__':
  entry_point.run(show)
