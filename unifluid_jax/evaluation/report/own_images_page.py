"""The report of a run on a user's own data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.example import Example, Image
from unifluid_jax.evaluation.own_images import (
  GeneratedImage,
  Key,
  OwnResults,
  PredictedCaption,
)
from unifluid_jax.evaluation.report.curves import Log, own_curves_section
from unifluid_jax.evaluation.report.gallery import gallery
from unifluid_jax.evaluation.report.markup import (
  card,
  cards,
  heading,
  paragraph,
  section,
  tile,
)
from unifluid_jax.evaluation.report.measures import OWN_ROWS, measures_table
from unifluid_jax.evaluation.report.settings import settings_section
from unifluid_jax.evaluation.report.template import fill, length, millions
from unifluid_jax.evaluation.report.texts import NOTHING
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.utils.progress import clock

SHOWN = {'train': 16, 'heldout': 24}
"""Most lines of each split that are shown."""

_TITLES = {
  'text_to_image': 'Text to image',
  'editing': 'Editing',
  'captioning': 'Captions',
  'vqa': 'Questions and answers',
}
_SPLITS = {'train': 'Lines trained on', 'heldout': 'Held-out lines'}


@dataclasses.dataclass(frozen=True)
class OwnReport:
  """What the page is made of.

  Attributes:
    name: Name of the run.
    experiment: The config.
    results: What the model wrote.
    metrics: The content of `metrics.json`.
    vae_log: Log of the VAE's training; empty for one that was trained before.
    log: Log of UniFluid's training.
  """

  name: str
  experiment: Experiment
  results: OwnResults
  metrics: Mapping[str, Any]
  vae_log: Log
  log: Log


def render_own(report: OwnReport) -> str:
  """The page as HTML."""
  experiment, results = report.experiment, report.results
  targets = experiment.evaluation.targets
  return fill(
    f'UniFluid on its own data: {report.name}',
    paragraph(_summary(report)),
    [
      section(
        'Measures',
        paragraph(
          'PSNR compares a drawing with the very image of its line, which a '
          'prompt rarely determines: the figure for another line\u2019s image '
          'shows what a drawing gets that ignores its prompt. Overlap is the '
          'share of common words (F1).'
        ),
        measures_table(report.metrics, targets, OWN_ROWS),
      ),
      own_curves_section(report.vae_log, report.log),
      *_sections(results, experiment.evaluation.seed),
      settings_section(experiment, report.metrics['manifest']),
    ],
  )


def _sections(results: OwnResults, seed: int) -> list[str]:
  """A section for each task: its lines trained on, and its held-out lines."""
  parts: dict[str, list[str]] = {}
  for key, drawn in results.drawn.items():
    parts.setdefault(key[0], []).append(_drawings(key, drawn, seed))
  for key, told in results.told.items():
    parts.setdefault(key[0], []).append(_texts(key, told, seed))
  return [section(_TITLES[task], *shown) for task, shown in parts.items()]


def _drawings(key: Key, drawn: GeneratedImage, seed: int) -> str:
  """Shows prompts, reference images, and samples."""
  task, split = key
  count = len(drawn.examples)
  rng = rng_of(seed, f'report: {" ".join(key)}')
  chosen = some(range(count), SHOWN[split], rng)
  title = f'{_SPLITS[split]}: {len(chosen)} of {count:,}, drawn at random'

  def show(index: int) -> str:
    example = drawn.examples[index]
    tiles = [tile(source, 'before') for source in _images(example)]
    tiles += [
      tile(_image(example.target), 'reference'),
      tile(drawn.kept[index], 'reference, by the VAE'),
      tile(drawn.images[index], 'drawing'),
    ]
    return card(tiles, _prompt(example), f'PSNR {drawn.psnr[index]:.1f} dB')

  return heading(title) + cards(map(show, chosen))


def _texts(key: Key, told: PredictedCaption, seed: int) -> str:
  """Images, their references, and what the model wrote."""
  task, split = key
  rng = rng_of(seed, f'report: {" ".join(key)}')

  def show(index: int) -> str:
    example = told.examples[index]
    return card(
      [tile(image) for image in _images(example)],
      told.texts[index] or NOTHING,
      f'reference: {" / ".join(told.references(index))}',
      above=_prompt(example) if task == 'vqa' else '',
      right=told.rights[index],
    )

  return gallery(_SPLITS[split], told.rights, show, rng, SHOWN[split])


def _images(example: Example) -> list[Image]:
  return [part for part in example.prefix if not isinstance(part, str)]


def _image(target: str | Image) -> Image:
  assert not isinstance(target, str)
  return target


def _prompt(example: Example) -> str:
  return ' '.join(part for part in example.prefix if isinstance(part, str))


def _summary(report: OwnReport) -> str:
  """One paragraph: what was trained, and on what."""
  metrics, counts = report.metrics, report.results.counts
  sizes, size = metrics['manifest']['parameters'], report.experiment.data
  vae_length = length(report.vae_log)
  vae_training = f' and was trained{vae_length}' if vae_length else ''
  heldout = _count(counts, 'heldout')
  text = (
    f'This model has {millions(sizes["unifluid"])} parameters and was trained'
    f'{length(report.log)} on {_count(counts, "train")}, at '
    f'{size.image_size} px. Its VAE has {millions(sizes["vae"])} '
    f'parameters{vae_training}. '
  )
  text += (
    f'Held out of training: {heldout}.' if heldout else 'No line was held out.'
  )
  if metrics['seconds_total']:
    text += f' The whole run took {clock(metrics["seconds_total"])} min.'
  return text


def _count(counts: Mapping[Key, int], split: str) -> str:
  """Lines by task, such as '225 lines for captioning'."""
  lines = [
    f'{count:,} lines for {task.replace("_", " ")}'
    for (task, of), count in counts.items()
    if of == split
  ]
  return ', '.join(lines)
