"""Measures the losses of held-out lines during training."""

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import heldout_tasks
from unifluid_jax.data.pipeline import make_batches
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.sharding.mesh import on_mesh
from unifluid_jax.sharding.process_rows import local_rows, put_rows
from unifluid_jax.training.loop import Measure
from unifluid_jax.training.step import (
  StepContext,
  TrainState,
  make_heldout_step,
)

_BATCHES = 4
"""Largest number of batches per measurement."""


def heldout_losses(
  experiment: Experiment,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: Mesh,
) -> Measure | None:
  """Creates the measurement of held-out losses.

  Each measurement uses the same batches and noise, and the trained parameters
  (not the EMA). Unlike in training, no prompt is dropped
  (`data.cond_drop_prob`).

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`.
    tokenizer: Encodes the texts.
    context: Context of the step.
    mesh: The mesh.

  Returns:
    The interval in steps, and a function from the state to
    `heldout_loss_image` and `heldout_loss_text`, as far as the lines have such
    targets. None without held-out lines.

  Raises:
    UserError: A held-out image cannot be read, or a text is too long.
  """
  heldout = heldout_tasks(experiment, tasks)
  if not heldout:
    if experiment.data.heldout:
      logging.info('no line is held out of training: too few lines')
    return None
  batches = _read(experiment, heldout, tokenizer, mesh)
  step = jax.jit(on_mesh(mesh, make_heldout_step(context)))
  everywhere = NamedSharding(mesh, PartitionSpec())

  def measure(state: TrainState) -> dict[str, float]:
    found = []
    for number, rows in enumerate(batches):
      batch = put_rows(mesh, rows, experiment.data.batch_rows)
      own = jax.device_put(np.int32(number), everywhere)
      found.append(jax.device_get(step(state, batch, own)))
    return _means(found)

  return experiment.training.heldout_every, measure


def _read(
  experiment: Experiment,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  mesh: Mesh,
) -> list[Batch]:
  """Reads this process's rows of batches that hold each line about once."""
  lines = {name: len(task) for name, task in tasks.items()}
  config = dataclasses.replace(
    experiment.pipeline(), weights=lines, cond_drop_prob=0.0, num_workers=0
  )
  count = min(-(-sum(lines.values()) // config.examples), _BATCHES)
  batches = make_batches(
    config,
    experiment.layout(),
    tasks,
    tokenizer,
    rows=local_rows(mesh, config.batch_rows),
  )
  with contextlib.closing(batches):
    return [batch for batch, _ in itertools.islice(batches, count)]


def _means(found: list) -> dict[str, float]:
  """Averages each loss over all targets of some batches."""
  means = {}
  for name in ('image', 'text'):
    counts = [float(getattr(counts, name)) for _, counts in found]
    sums = [
      float(getattr(losses, name)) * count
      for (losses, _), count in zip(found, counts, strict=True)
    ]
    if sum(counts):
      means[f'heldout_loss_{name}'] = sum(sums) / sum(counts)
  return means
