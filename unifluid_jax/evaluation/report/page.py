"""The report: one HTML page that needs nothing else."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.drawing import list_drawings
from unifluid_jax.data.emoji.splits import cells_of
from unifluid_jax.evaluation.report.curves import (
  Log,
  curves_section,
)
from unifluid_jax.evaluation.report.image_grids import (
  editing_section,
  reconstruction_section,
  text_to_image_section,
)
from unifluid_jax.evaluation.report.markup import paragraph, section
from unifluid_jax.evaluation.report.measures import (
  kinds_table,
  measures_table,
)
from unifluid_jax.evaluation.report.settings import settings_section
from unifluid_jax.evaluation.report.template import fill, length, millions
from unifluid_jax.evaluation.report.texts import (
  captioning_section,
  vqa_section,
)
from unifluid_jax.evaluation.results import Results
from unifluid_jax.inference import Model
from unifluid_jax.utils.progress import clock


@dataclasses.dataclass(frozen=True)
class Report:
  """What the page is made of.

  Attributes:
    name: Name of the run.
    model: The model.
    config: How much was looked at.
    results: What the model wrote.
    metrics: The content of `metrics.json`.
    vae_log: Log of the VAE's training; empty for one that was trained before.
    log: Log of UniFluid's training.
  """

  name: str
  model: Model
  config: EvaluationConfig
  results: Results
  metrics: Mapping[str, Any]
  vae_log: Log
  log: Log


def render(report: Report) -> str:
  """The page as HTML."""
  sections = [
    _measures_section(report),
    curves_section(report.vae_log, report.log),
    *_task_sections(report),
    settings_section(report.model.experiment, report.metrics['manifest']),
  ]
  title = f'UniFluid on emoji: {report.name}'
  return fill(title, paragraph(_summary(report)), sections)


def _measures_section(report: Report) -> str:
  return section(
    'Measures',
    paragraph(
      'Held-out drawings are one artist\u2019s drawings of a concept that '
      'training has seen from other artists only; n counts images, captions, '
      'answers or edits.'
    ),
    measures_table(report.metrics, report.config.targets),
  )


def _task_sections(report: Report) -> list[str]:
  """A section for each task that was evaluated."""
  results, metrics = report.results, report.metrics
  side, seed = report.model.experiment.data.image_size, report.config.seed
  sections = []
  if results.text_to_image:
    sections.append(
      text_to_image_section(report.model, results.text_to_image, seed)
    )
  if results.editing:
    kinds = kinds_table('kind of edit', metrics, 'edit_exact')
    sections.append(editing_section(results.editing, kinds, seed))
  if results.captioning:
    sections.append(captioning_section(results.captioning, side, seed))
  if results.vqa:
    kinds = kinds_table(
      'type of question', metrics, 'vqa_heldout', 'vqa_majority'
    )
    sections.append(vqa_section(results.vqa, kinds, side, seed))
  sections.append(reconstruction_section(results.reconstruction, seed))
  return sections


def _summary(report: Report) -> str:
  """One paragraph: what this is, and what was trained."""
  emoji, metrics = report.model.experiment.emoji(), report.metrics
  sizes = metrics['manifest']['parameters']
  vae_length = length(report.vae_log)
  vae_training = f' and was trained{vae_length}' if vae_length else ''
  text = (
    'UniFluid is one transformer that reads and writes both text and images; '
    'it writes an image as a sequence of continuous tokens of a VAE, each '
    'drawn by a small diffusion network. This model has '
    f'{millions(sizes["unifluid"])} parameters and was trained'
    f'{length(report.log)} on {len(list_drawings(emoji, "train")):,} drawings '
    f'of {metrics["concepts"]:,} emoji concepts by {len(emoji.artists)} '
    f'artists, at {emoji.image_size} px. Its VAE has '
    f'{millions(sizes["vae"])} parameters{vae_training}. '
    f'{len(list_drawings(emoji, "cell")):,} other '
    f'drawings were held out: {len(cells_of(emoji, "cell")):,} of the concepts '
    'lack one artist.'
  )
  if metrics['seconds_total']:
    text += f' The whole run took {clock(metrics["seconds_total"])} min.'
  return text
