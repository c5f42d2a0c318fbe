"""Samples from a trained model: generates, edits, captions, answers.

  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=generate --prompt='fox, noto style' --samples=4
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=edit --image=fox.png --instruction='make the background pink'
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=caption --image=fox.png
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=answer --image=fox.png --question='what is this?'

A flag that says what to read can be repeated; images pair up with texts, and
one that stands alone goes with all of the others. The folder --out gets each
image that was written (000.png, 001.png, ...), a sheet of everything, and
`samples.json` with all texts and settings. Settings that no flag gives are
those of the run's config.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

from absl import flags, logging
from PIL import Image as PillowImage

from unifluid_jax import cli, inference
from unifluid_jax.config import to_dict
from unifluid_jax.data import images
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.sheet import describe, draw_sheet
from unifluid_jax.errors import UserError
from unifluid_jax.sampling.images import ImageSamplingConfig
from unifluid_jax.sampling.text import TextSamplingConfig

Sampling = ImageSamplingConfig | TextSamplingConfig

_READS = {
  'generate': ('prompt',),
  'edit': ('image', 'instruction'),
  'caption': ('image',),
  'answer': ('image', 'question'),
}
_IMAGE_SETTINGS = ('steps', 'head_steps', 'solver', 'guidance', 'temperature')
_TEXT_SETTINGS = ('max_tokens', 'top_k', 'top_p', 'temperature')
_SETTINGS = {
  'generate': ('samples', *_IMAGE_SETTINGS),
  'edit': _IMAGE_SETTINGS,
  'caption': _TEXT_SETTINGS,
  'answer': _TEXT_SETTINGS,
}

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_TASK = flags.DEFINE_enum('task', None, list(_READS), 'What to do.')
_OUT = flags.DEFINE_string('out', 'samples', 'Folder to write to.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of all samples.')
_SAMPLES = flags.DEFINE_integer(
  'samples', 1, 'Images of each prompt.', lower_bound=1
)

flags.DEFINE_multi_string('prompt', [], 'What to generate.')
flags.DEFINE_multi_string('image', [], 'Image file to read.')
flags.DEFINE_multi_string('instruction', [], 'What to do to the image.')
flags.DEFINE_multi_string('question', [], 'What to answer about the image.')

flags.DEFINE_integer('steps', None, 'Decoding steps of an image.')
flags.DEFINE_integer('head_steps', None, 'Steps of the diffusion solver.')
flags.DEFINE_string('solver', None, 'Diffusion solver.')
flags.DEFINE_float('guidance', None, 'Scale of classifier-free guidance.')
flags.DEFINE_integer('max_tokens', None, 'Longest text.', lower_bound=1)
flags.DEFINE_integer('top_k', None, 'How many tokens a text chooses among.')
flags.DEFINE_float('top_p', None, 'Probability of those tokens.')
flags.DEFINE_float(
  'temperature',
  None,
  "Scale of an image's noise, or divisor of a text's logits.",
  lower_bound=0,
)


def main() -> None:
  """Does what the flags ask for."""
  task = cli.require(_TASK)
  _check_flags(task)
  rows = _rows(task)
  model = inference.load(cli.require(_WORKDIR))
  sampling = _sampling(task, model)
  examples = _sample(task, model, rows, sampling)
  for example in examples:
    sys.stdout.write(f'{describe(example)}\n')
  out = pathlib.Path(_OUT.value)
  try:
    _write(out, task, rows, examples, sampling)
  except OSError as error:
    raise UserError(f'--out={out} cannot be written: {error}') from error
  logging.info('samples are in %s', out)


def _check_flags(task: str) -> None:
  """Refuses flags that the task would not look at."""
  takes = {*_READS[task], *_SETTINGS[task]}
  every = {name for names in _READS.values() for name in names}
  every |= {name for names in _SETTINGS.values() for name in names}
  for name in sorted(every - takes):
    if flags.FLAGS[name].present:
      raise UserError(
        f'--task={task} takes no --{name}; it takes '
        f'{", ".join(f"--{taken}" for taken in sorted(takes))}'
      )


def _rows(task: str) -> list[dict[str, str]]:
  """What to read, as given by the flags: one dictionary a result."""
  given = {name: flags.FLAGS[name].value for name in _READS[task]}
  count = max(map(len, given.values()))
  for name, values in given.items():
    if not values:
      raise UserError(f'--task={task} needs --{name}')
    if len(values) not in (1, count):
      raise UserError(
        f'--{name} is given {len(values)} times; give it once, or {count} times'
      )
  return [
    {name: values[i % len(values)] for name, values in given.items()}
    for i in range(count)
    for _ in range(_SAMPLES.value)
  ]


def _sampling(task: str, model: inference.Model) -> Sampling:
  """The settings of the run's config, changed as the flags say."""
  given = {
    name: flags.FLAGS[name].value
    for name in _SETTINGS[task]
    if name != 'samples' and flags.FLAGS[name].present
  }
  if _SETTINGS[task] == _TEXT_SETTINGS:
    return dataclasses.replace(model.experiment.text_sampling, **given)
  sampling = model.experiment.sampling
  if 'guidance' in given:
    scale = given['guidance']
    given['guidance'] = dataclasses.replace(sampling.guidance, scale=scale)
  return dataclasses.replace(sampling, **given)


def _read_image(path: str, size: int) -> Image:
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(f'--image={path}: {error.strerror}') from error
  return images.fit(images.decode(data, f'--image={path}'), size)


def _sample(
  task: str,
  model: inference.Model,
  rows: list[dict[str, str]],
  sampling: Any,
) -> list[Example]:
  """What was read, with what the model wrote for a target."""
  settings: dict[str, Any] = {'seed': _SEED.value, 'sampling': sampling}
  size = model.experiment.data.image_size
  read = [_read_image(row['image'], size) for row in rows if 'image' in row]
  texts = [row[_READS[task][-1]] for row in rows]
  match task:
    case 'generate':
      ...
