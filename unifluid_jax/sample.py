"""Samples from a trained model: generates, edits, paints, captions, answers.

  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=generate --prompt='fox, noto style' --samples=4
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=edit --image=fox.png --instruction='make the background pink'
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=paint --image=fox.png --mask=mask.png --prompt='fox, noto style'
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=caption --image=fox.png
  python -m unifluid_jax.sample --workdir=runs/quickstart \
      --task=answer --image=fox.png --question='what is this?'

A flag that says what to read can be repeated; images pair up with texts, and
one that stands alone goes with all of the others. Of an image of another size
than the model's, the central square is taken and resized. A mask has the size
of its image and is white where the image is redrawn. The folder --out gets
each image that was written (0002_1.png is sample 1 of prompt 2), a sheet of
all, and `samples.json` with all texts and settings. Settings that no flag gives
are those of the run's config.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags, logging
from PIL import Image as PillowImage

from unifluid_jax import inference
from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import to_dict
from unifluid_jax.config.sections.sampling import (
  ImageSamplingConfig,
  TextSamplingConfig,
)
from unifluid_jax.data import files, images
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.sheet import draw_sheet
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.host_memory import check_host_memory
from unifluid_jax.utils.paths import check_folder, local_path

Sampling = ImageSamplingConfig | TextSamplingConfig


class _Task(NamedTuple):
  """A task.

  Attributes:
    run: What of the model does it.
    reads: Flags that are read for each result.
    section: Section of the config with the sampler's settings.
    settings: Flags that change them.
  """

  run: Callable[..., inference.ImageSamples | list[str]]
  reads: tuple[str, ...]
  section: str
  settings: tuple[str, ...]


def _paint(
  model: inference.Model,
  images: list[Image],
  masks: list[Image],
  prompts: list[str],
  **settings: Any,
) -> inference.ImageSamples:
  """Paints where the masks are white."""
  redraw = [mask.max(-1) > 127 for mask in masks]
  return model.paint(images, redraw, prompts, **settings)


_IMAGE_SETTINGS = ('steps', 'head_steps', 'solver', 'guidance', 'temperature')
_TEXT_SETTINGS = ('max_tokens', 'top_k', 'top_p', 'temperature')
_TASKS = {
  'generate': _Task(
    inference.Model.generate,
    ('prompt',),
    'sampling',
    ('samples', *_IMAGE_SETTINGS),
  ),
  'edit': _Task(
    inference.Model.edit,
    ('image', 'instruction'),
    'edit_sampling',
    _IMAGE_SETTINGS,
  ),
  'paint': _Task(
    _paint,
    ('image', 'mask', 'prompt'),
    'sampling',
    ('samples', *_IMAGE_SETTINGS),
  ),
  'caption': _Task(
    inference.Model.caption, ('image',), 'text_sampling', _TEXT_SETTINGS
  ),
  'answer': _Task(
    inference.Model.answer,
    ('image', 'question'),
    'text_sampling',
    _TEXT_SETTINGS,
  ),
}

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_TASK = flags.DEFINE_enum('task', None, list(_TASKS), 'What to do.')
_OUT = flags.DEFINE_string('out', 'samples', 'Folder to write to.')
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Seed of all samples.', lower_bound=0, upper_bound=2**32 - 1
)

_TENSOR = flags.DEFINE_integer(
  'tensor', 1, inference.TENSOR_HELP, lower_bound=1
)

flags.DEFINE_multi_string('prompt', [], 'What to generate or paint.')
flags.DEFINE_multi_string('image', [], 'Image file to read.')
flags.DEFINE_multi_string('mask', [], 'Image file, white where to paint.')
flags.DEFINE_multi_string('instruction', [], 'What to do to the image.')
flags.DEFINE_multi_string('question', [], 'What to answer about the image.')

_SAMPLES = flags.DEFINE_integer(
  'samples', 1, 'Images of each prompt.', lower_bound=1, upper_bound=10**5
)
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
  task = _TASKS[entry_point.require(_TASK)]
  _check_flags(task)
  given = _given(task)
  out = local_path(_OUT.value, f'--out={_OUT.value}')
  try:
    check_folder(out)
  except OSError as error:
    raise UserError(
      f'--out={out} cannot be written: {error.strerror}; name a folder that '
      'can be written'
    ) from error
  model = inference.load(entry_point.require(_WORKDIR), _TENSOR.value)
  sampling = _sampling(task, model)
  examples = _sample(task, model, given, sampling)
  try:
    out.mkdir(parents=True, exist_ok=True)
    lines = _write(out, given, examples, sampling)
  except OSError as error:
    raise UserError(f'--out={out} cannot be written: {error}') from error
  sys.stdout.writelines(f'{line}\n' for line in lines)
  logging.info('the samples are in %s', out)


def _check_flags(task: _Task) -> None:
  """Rejects flags that the task ignores."""
  takes = {*task.reads, *task.settings}
  every = {n for other in _TASKS.values() for n in other.reads + other.settings}
  for name in sorted(every - takes):
    if flags.FLAGS[name].present:
      raise UserError(
        f'--task={_TASK.value} takes no --{name}; it takes '
        f'{", ".join(f"--{known}" for known in sorted(takes))}'
      )


def _given(task: _Task) -> list[dict[str, str]]:
  """What to read for each result, as the flags say."""
  values = {name: getattr(flags.FLAGS, name) for name in task.reads}
  count = max(map(len, values.values()))
  for name, given in values.items():
    if not given:
      raise UserError(f'--task={_TASK.value} needs --{name}')
    if len(given) not in (1, count):
      raise UserError(
        f'--{name} is given {len(given)} times; give it once, or {count} times'
      )
  return [
    {name: given[i % len(given)] for name, given in values.items()}
    for i in range(count)
  ]


def _sampling(task: _Task, model: inference.Model) -> Sampling:
  """The settings of the run's config, changed as the flags say."""
  changes: dict[str, Any] = {
    name: getattr(flags.FLAGS, name)
    for name in task.settings
    if name != 'samples' and flags.FLAGS[name].present
  }
  sampling = getattr(model.experiment, task.section)
  if 'guidance' in changes:
    scale = changes['guidance']
    changes['guidance'] = dataclasses.replace(sampling.guidance, scale=scale)
  return dataclasses.replace(sampling, **changes)


def _sample(
  task: _Task,
  model: inference.Model,
  given: list[dict[str, str]],
  sampling: Sampling,
) -> list[Example]:
  """What was read, and what the model wrote as the target."""
  config = model.experiment
  least = max(config.data.image_size, config.model.encoder.image_size)
  if 'mask' in task.reads:
    least = 0  # Reading does not reduce an image, so that its mask fits.
  pixels = len(given) * _SAMPLES.value * config.data.image_size**2
  check_host_memory({'--samples': 6 * pixels}, 'the requested samples')
  rows = [
    tuple(
      _read_image(name, value, least, config.data.max_pixels)
      if name in ('image', 'mask')
      else value
      for name, value in row.items()
    )
    for row in given
  ]
  extra = {'samples': _SAMPLES.value} if 'samples' in task.settings else {}
  columns = [list(column) for column in zip(*rows, strict=True)]
  written = task.run(
    model, *columns, seed=_SEED.value, sampling=sampling, **extra
  )
  if isinstance(written, inference.ImageSamples):
    targets: list[Any] = list(written.images)
  else:
    targets = written
  return [
    Example(rows[i // _SAMPLES.value], target)
    for i, target in enumerate(targets)
  ]


def _read_image(flag: str, path: str, least: int, max_pixels: int) -> Image:
  name = f'--{flag}={path}'
  data = files.read(local_path(path, name), name)
  return images.decode(data, name, least, max_pixels)


def _write(
  out: pathlib.Path,
  given: list[dict[str, str]],
  examples: list[Example],
  sampling: Sampling,
) -> list[str]:
  """Writes the images, the contact sheet and the JSON file.

  Returns:
    A line to print for each result.
  """
  samples, lines = [], []
  for i, example in enumerate(examples):
    prompt, sample = divmod(i, _SAMPLES.value)
    read = given[prompt]
    if isinstance(example.target, str):
      written = {'text': example.target}
    else:
      written = {'file': f'{prompt:04}_{sample}.png'}
      PillowImage.fromarray(example.target).save(out / written['file'])
    samples.append(read | written)
    lines.append(f'{" | ".join(read.values())} -> {" ".join(written.values())}')
  sheet = draw_sheet(examples, columns=min(_SAMPLES.value, 8))
  PillowImage.fromarray(sheet).save(out / 'sheet.png')
  settings = {
    'workdir': _WORKDIR.value,
    'task': _TASK.value,
    'seed': _SEED.value,
    'sampling': to_dict(sampling),
    'samples': samples,
  }
  text = json.dumps(settings, indent=2, ensure_ascii=False)
  (out / 'samples.json').write_text(f'{_printable(text)}\n', encoding='utf-8')
  return lines


def _printable(text: str) -> str:
  """With escapes, which JSON has too, for bytes of a path that are no text."""
  return text.encode(errors='backslashreplace').decode()


if __name__ == '__main__':
  entry_point.run(main)
