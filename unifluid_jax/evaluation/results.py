"""The results of an evaluation."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.evaluation.captioning_metrics import (
  Captioning,
  evaluate_captioning,
)
from unifluid_jax.evaluation.editing_metrics import Edited, evaluate_editing
from unifluid_jax.evaluation.measure import Measures
from unifluid_jax.evaluation.reconstruction_metrics import (
  Reconstruction,
  evaluate_reconstruction,
)
from unifluid_jax.evaluation.text_to_image_metrics import (
  TextToImage,
  evaluate_text_to_image,
)
from unifluid_jax.evaluation.vqa_metrics import QuestionAnswering, evaluate_vqa
from unifluid_jax.inference import Model
from unifluid_jax.utils.progress import clock


@dataclasses.dataclass(frozen=True)
class Results:
  """What the model wrote, task by task; None for tasks that are not evaluated.

  Attributes:
    reconstruction: The VAE's images.
    captioning: Captions.
    vqa: Answers.
    editing: Edited images.
    text_to_image: Images for prompts.
  """

  reconstruction: Reconstruction
  captioning: Captioning | None = None
  vqa: QuestionAnswering | None = None
  editing: Edited | None = None
  text_to_image: TextToImage | None = None

  @property
  def measures(self) -> Measures:
    """The measures of all tasks."""
    measures: Measures = {}
    for field in dataclasses.fields(self):
      part = getattr(self, field.name)
      measures |= part.measures if part else {}
    return measures


_TASKS: dict[str, Callable[[Model, EvaluationConfig], Any]] = {
  'captioning': evaluate_captioning,
  'vqa': evaluate_vqa,
  'editing': evaluate_editing,
  'text_to_image': evaluate_text_to_image,
}


def tasks_of(experiment: Experiment) -> list[str]:
  """The tasks that the training mixture takes from the embedded data."""
  sources = experiment.data.sources.values()
  trained = {source.task for source in sources if source.kind == 'emoji'}
  return [task for task in _TASKS if task in trained]


def evaluate(model: Model, config: EvaluationConfig) -> Results:
  """Evaluates the VAE, and each task of the embedded data that was trained."""
  start = time.monotonic()
  logging.info('reconstruction by the VAE')
  results = Results(evaluate_reconstruction(model))
  for task in tasks_of(model.experiment):
    part = {task: _TASKS[task](model, config)}
    results = dataclasses.replace(results, **part)
  logging.info('evaluated in %s', clock(time.monotonic() - start))
  for name, measure in results.measures.items():
    logging.info('%s %.4f  (n = %d)', name, measure.value, measure.count)
  return results
