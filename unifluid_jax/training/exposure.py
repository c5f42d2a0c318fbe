"""How often a training sees each record, and whether its rate suits that."""

from collections.abc import Mapping

from absl import logging

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.task import Task

HIGHEST_RATIO = 0.1
"""Largest learning rate x images / (images per step) that has drawn well.

The steps between two sights of an image must not undo what it taught. Measured
in experiments/README.md, "Rate, batch and epochs".
"""

_FEWEST_EPOCHS = 10
"""A training of fewer epochs learns what images share, not each of them."""


def epochs(
  experiment: Experiment, tasks: Mapping[str, Task]
) -> dict[str, float]:
  """Times that a record of each source is seen over the whole training.

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`.
  """
  sources = {n: experiment.data.sources[n] for n in tasks}
  total = sum(source.weight for source in sources.values())
  examples = experiment.data.examples * experiment.training.steps
  return {
    name: examples * source.weight / total / len(tasks[name])
    for name, source in sources.items()
    if source.weight and len(tasks[name])
  }


def rate_ratio(experiment: Experiment, tasks: Mapping[str, Task]) -> float:
  """Learning rate x images / (images per step), of text-to-image sources."""
  sources = experiment.data.sources
  drawn = [n for n in tasks if sources[n].task == 'text_to_image']
  total = sum(sources[name].weight for name in tasks)
  share = sum(sources[name].weight for name in drawn) / total
  if not share:
    return 0.0
  images = sum(len(tasks[name]) for name in drawn)
  per_step = share * experiment.data.examples
  return experiment.optimizer.learning_rate * images / per_step


def log_exposure(experiment: Experiment, tasks: Mapping[str, Task]) -> None:
  """Logs the epochs of each source; warns if the rate is too high for them."""
  seen = epochs(experiment, tasks)
  for name, count in seen.items():
    logging.info(
      'source %s: %d records, %.3g epochs', name, len(tasks[name]), count
    )
  drawn = [
    count
    for name, count in seen.items()
    if experiment.data.sources[name].task == 'text_to_image'
  ]
  ratio = rate_ratio(experiment, tasks)
  if ratio > HIGHEST_RATIO and max(drawn, default=0) > _FEWEST_EPOCHS:
    lower = experiment.optimizer.learning_rate * HIGHEST_RATIO / ratio
    logging.warning(
      'optimizer.learning_rate x images / (images per step) is %.2g; above '
      '%.2g a model hardly learns to draw single images: lower the learning '
      'rate to %.1g, or raise data.examples and data.batch_rows',
      ratio,
      HIGHEST_RATIO,
      lower,
    )
