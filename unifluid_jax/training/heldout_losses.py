"""The losses of held-out lines, measured while UniFluid is trained."""

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
"""Most batches of a measurement."""


def heldout_losses(
  experiment: Experiment,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: Mesh,
) -> Measure | None:
  """What measures the losses of held-out lines, and how often.

  Each measurement is of the same batches under the same noise, with the
  parameters that are trained, as the training losses are. An image is never
  written after nothing here, unlike in training (`data.cond_drop_prob`).

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`.
    tokenizer: Encodes the texts.
    context: What a step needs besides arrays.
    mesh: The mesh.

  Returns:
    The interval in steps, and what takes the state to `heldout_loss_image` and
    `heldout_loss_text`, of which there are those that the lines have targets
    for. None where no line is held out.

  Raises:
    UserError: A held-out image cannot be read, or a text is too long.
  """
  heldout = heldout_tasks(experiment, tasks)
  if not heldout:
    if experiment.data.heldout:
      logging.info('no line is held out of training; there are too few')
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
  """This process's rows of the batches, which hold each line about once."""
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
  """The mean over all targets of some batches, for each loss that has any."""
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
