"""Evaluates a user's own data: samples beside references.

Every task is measured on lines that it was trained on, and on those that were
held out of training, where there are any.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.config.tasks import heldout_tasks, make_tasks
from unifluid_jax.data.example import Example
from unifluid_jax.data.task import Task
from unifluid_jax.evaluation.caption_scores import bleu, cider_d, rouge_l
from unifluid_jax.evaluation.measure import Measure, Measures, share
from unifluid_jax.evaluation.overlap import best_overlap, words
from unifluid_jax.evaluation.reconstruction_metrics import psnr_of
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.inference import Model
from unifluid_jax.utils.progress import clock

IMAGE_TASKS = {'text_to_image': 't2i', 'editing': 'edit'}
"""Tasks that write images, and how the names of their measures begin."""

TEXT_TASKS = {'captioning': 'caption', 'vqa': 'vqa'}
"""Tasks that generate texts."""

Key = tuple[str, str]
"""A task, and 'train' or 'heldout'."""

Lines = Mapping[Key, Sequence[tuple[Task, int]]]
"""The lines of each task and split: their source, and their index there."""


@dataclasses.dataclass(frozen=True)
class GeneratedImage:
  """Sampled images with their targets.

  Attributes:
    examples: The examples, with reference images as targets.
    images: What the model drew.
    kept: The targets after the VAE: the best possible result.
    psnr: Of each drawing against its target, in dB.
    kept_psnr: Of each target after the VAE, in dB.
  """

  examples: list[Example]
  images: UInt8[np.ndarray, 'n S S 3']
  kept: UInt8[np.ndarray, 'n S S 3']
  psnr: Float[np.ndarray, ' n']
  kept_psnr: Float[np.ndarray, ' n']

  def measures(self, task: str, split: str) -> Measures:
    """The means over the images; `_other_` is against another line's image."""
    name = f'{IMAGE_TASKS[task]}_{split}'
    means = {
      f'{name}_psnr_db': self.psnr,
      f'{name}_vae_psnr_db': self.kept_psnr,
    }
    if len(self.examples) > 1:
      # Half the list away: neighbors may be lines of one image.
      targets = _targets(self.examples)
      others = np.roll(targets, len(targets) // 2, axis=0)
      means[f'{name}_other_psnr_db'] = psnr_of(others, self.images)
    return {
      name: Measure(float(values.mean(dtype=np.float64)), len(values))
      for name, values in means.items()
    }


@dataclasses.dataclass(frozen=True)
class PredictedCaption:
  """Texts about images.

  Attributes:
    examples: The examples.
    texts: What the model wrote.
  """

  examples: list[Example]
  texts: list[str]

  def references(self, index: int) -> tuple[str, ...]:
    """The texts that are right."""
    references: tuple[str, ...] = self.examples[index].facts['references']
    return tuple(' '.join(text.split()) for text in references)

  @property
  def rights(self) -> list[bool]:
    """Whether each text is, word for word, one of its references."""
    return [
      ' '.join(text.split()) in self.references(i)
      for i, text in enumerate(self.texts)
    ]

  def measures(self, task: str, split: str) -> Measures:
    """The share that is exact, and how much the texts share with references.

    Captions have the scores of the COCO evaluation, too.
    """
    overlaps = [
      best_overlap(text, self.references(i))
      for i, text in enumerate(self.texts)
    ]
    name, count = f'{TEXT_TASKS[task]}_{split}', len(self.texts)
    measures = {
      f'{name}_exact': share(self.rights),
      f'{name}_overlap': Measure(sum(overlaps) / count, count),
    }
    if task == 'captioning':
      texts = [words(text) for text in self.texts]
      references = [
        [words(text) for text in self.references(i)] for i in range(count)
      ]
      measures |= {
        f'{name}_{score}': Measure(compute(texts, references), count)
        for score, compute in (
          ('cider_d', cider_d),
          ('bleu_4', bleu),
          ('rouge_l', rouge_l),
        )
      }
    return measures


@dataclasses.dataclass(frozen=True)
class OwnResults:
  """What the model wrote.

  Attributes:
    counts: Number of lines of each task and split.
    drawn: Images, by task and split.
    told: Texts, by task and split.
  """

  counts: Mapping[Key, int]
  drawn: Mapping[Key, GeneratedImage]
  told: Mapping[Key, PredictedCaption]

  @property
  def measures(self) -> Measures:
    """The measures of all tasks and splits."""
    measures: Measures = {}
    for part in (self.drawn, self.told):
      for key, written in part.items():
        measures |= written.measures(*key)
    return measures


def own_tasks_of(experiment: Experiment) -> list[str]:
  """The tasks that the training mixture takes from a user's own data."""
  sources = experiment.data.sources.values()
  trained = {source.task for source in sources if source.kind != 'emoji'}
  return [task for task in (*IMAGE_TASKS, *TEXT_TASKS) if task in trained]


def open_lines(experiment: Experiment) -> Lines:
  """Opens the user's own sources of the training mixture.

  Raises:
    UserError: One of them cannot be opened.
  """
  own = {n: s for n, s in experiment.data.sources.items() if s.kind != 'emoji'}
  training = make_tasks(experiment, own)
  splits: dict[str, Mapping[str, Task]] = {
    'train': training,
    'heldout': heldout_tasks(experiment, training),
  }
  return {
    (kind, split): lines
    for kind in own_tasks_of(experiment)
    for split, tasks in splits.items()
    if (
      lines := [
        (task, index)
        for name, task in sorted(tasks.items())
        if own[name].task == kind
        for index in range(len(task))
      ]
    )
  }


def evaluate_own(
  model: Model, config: EvaluationConfig, lines: Lines
) -> OwnResults:
  """Samples an image or a text for some lines of each task and split.

  Args:
    model: The model.
    config: How much to evaluate.
    lines: The lines, see `open_lines`.

  Raises:
    UserError: An image cannot be read.
  """
  start = time.monotonic()
  drawn, told = {}, {}
  for key, examples in _examples(config, lines):
    logging.info('%s, %s lines: %d', *key, len(examples))
    if key[0] in IMAGE_TASKS:
      drawn[key] = _draw(model, config, key[0], examples)
    else:
      told[key] = _tell(model, config, examples)
  counts = {key: len(found) for key, found in lines.items()}
  results = OwnResults(counts, drawn, told)
  logging.info('evaluated in %s', clock(time.monotonic() - start))
  for name, measure in results.measures.items():
    logging.info('%s %.4f  (n = %d)', name, measure.value, measure.count)
  return results


def _examples(
  config: EvaluationConfig, lines: Lines
) -> Iterator[tuple[Key, list[Example]]]:
  """Lines that are drawn from each task and split, in the canonical text."""
  most = {
    'text_to_image': config.prompts,
    'editing': config.edits,
    'captioning': config.captions,
    'vqa': config.questions,
  }
  for key, found in lines.items():
    rng = rng_of(config.seed, f'own data: {" ".join(key)}')
    chosen = some(found, most[key[0]], rng)
    yield key, [task.build(task[i], rng, augment=False) for task, i in chosen]


def _draw(
  model: Model, config: EvaluationConfig, kind: str, examples: list[Example]
) -> GeneratedImage:
  experiment = model.experiment
  sampling = experiment.sampling
  if kind == 'editing':
    sampling = experiment.editing
  written = model.sample_images(examples, config.seed, sampling=sampling)
  targets = _targets(examples)
  decoded = model.reconstruct(targets)
  kept = np.clip(np.round((decoded + 1) * 127.5), 0, 255).astype(np.uint8)
  return GeneratedImage(
    examples,
    written.images,
    kept,
    psnr_of(targets, written.images),
    psnr_of(targets, kept),
  )


def _tell(
  model: Model, config: EvaluationConfig, examples: list[Example]
) -> PredictedCaption:
  sampling = dataclasses.replace(
    model.experiment.text_sampling, temperature=0.0
  )
  return PredictedCaption(
    examples, model.sample_texts(examples, config.seed, sampling)
  )


def _targets(examples: Sequence[Example]) -> UInt8[np.ndarray, 'n S S 3']:
  return np.stack([np.asarray(example.target) for example in examples])
