"""How much the prompt lowers the image loss, measured on a fixed probe.

A model that follows prompts predicts an image better from its own prompt than
from another one. The gap opens long before samples look right, so it shows
early whether a recipe works.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_task
from unifluid_jax.data.example import Example
from unifluid_jax.data.layout import lay_out
from unifluid_jax.data.packing import (
  PREFIX_MULTIPLE,
  RowCapacity,
  needs_of,
  pack,
)
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.masking import CAUSAL
from unifluid_jax.sharding.mesh import on_mesh
from unifluid_jax.sharding.process_rows import local_rows, put_rows
from unifluid_jax.training.loop import Measure
from unifluid_jax.training.step import StepContext, TrainState, make_probe_step

EXAMPLES = 64
"""Images per split of the probe."""

PROMPTS = ('right', 'wrong', 'no')
"""The image's own prompt; that of another image, by the same artist where the
data names artists; and no prompt."""


def prompt_probe(
  experiment: Experiment,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: Mesh,
) -> Measure | None:
  """Makes the measurement of `probe_*` metrics.

  The images, their orders and their noise are the same each time, so values at
  different steps differ by the parameters only.

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`.
    tokenizer: Encodes the prompts.
    context: Context of the step.
    mesh: The mesh.

  Returns:
    The interval in steps, and a function from the state to image losses:
    `probe_SPLIT_PROMPT` with PROMPT of PROMPTS, and `probe_SPLIT_gap_rank_J`,
    how much the right prompt lowers the loss, for decoding ranks from J to
    twice J. None if `training.probe_every` is 0 or no source generates images
    from texts.
  """
  every = experiment.training.probe_every
  if not every:
    return None
  splits = {
    split: examples
    for split, found in _probe_tasks(experiment, tasks).items()
    if len(examples := _draw_examples(found, experiment.seed)) > 1
  }
  if not splits:
    return None
  batches = {
    split: _lay_out_prompts(experiment, tokenizer, mesh, examples)
    for split, examples in splits.items()
  }
  step = jax.jit(on_mesh(mesh, make_probe_step(context)))
  everywhere = NamedSharding(mesh, PartitionSpec())

  def by_rank(state: TrainState, rows: Sequence[Batch]) -> np.ndarray:
    losses = []
    for number, part in enumerate(rows):
      batch = put_rows(mesh, part, experiment.data.batch_rows)
      own = jax.device_put(np.int32(number), everywhere)
      losses.append(jax.device_get(step(state, batch, own)))
    sums, counts = np.sum(losses, axis=0)
    return sums / np.maximum(counts, 1)

  def measure(state: TrainState) -> dict[str, float]:
    values = {}
    for split, variants in batches.items():
      losses = {name: by_rank(state, rows) for name, rows in variants.items()}
      for name, ranks in losses.items():
        values[f'probe_{split}_{name}'] = float(ranks.mean())
      if experiment.model.decoding == CAUSAL:
        gap = losses['wrong'] - losses['right']
        for first, last in _rank_groups(len(gap)):
          mean = float(gap[first:last].mean())
          values[f'probe_{split}_gap_rank_{first}'] = mean
    return values

  return every, measure


def _rank_groups(count: int) -> Iterator[tuple[int, int]]:
  """Spans of ranks: 0, 1, 2 to 3, 4 to 7, and so on."""
  edges = [0, *itertools.takewhile(lambda x: x < count, _powers()), count]
  return itertools.pairwise(edges)


def _powers() -> Iterator[int]:
  return (2**k for k in itertools.count())


def _probe_tasks(
  experiment: Experiment, tasks: Mapping[str, Task]
) -> dict[str, list[Task]]:
  """Tasks that generate images from texts, on training and held-out data."""
  splits: dict[str, list[Task]] = {'train': [], 'heldout': []}
  for name, source in experiment.data.sources.items():
    if source.task != 'text_to_image' or name not in tasks:
      continue
    task = tasks[name]
    splits['train'].append(task)
    if source.kind == 'emoji' and source.split == 'train':
      heldout = dataclasses.replace(source, split='cell')
      splits['heldout'].append(make_task(experiment, name, heldout))
    elif isinstance(task, FolderTask) and source.split == 'train':
      splits['heldout'].append(task.of_split('heldout'))
  return splits


def _draw_examples(tasks: Sequence[Task], seed: int) -> list[Example]:
  """Examples without augmentation, those of an artist side by side."""
  rng = np.random.default_rng(seed)
  records = [(task, index) for task in tasks for index in range(len(task))]
  chosen = rng.permutation(len(records))[:EXAMPLES]
  examples = [
    records[i][0].build(records[i][0][records[i][1]], rng, augment=False)
    for i in chosen
  ]
  return sorted(examples, key=lambda e: e.facts.get('artist', ''))


def _lay_out_prompts(
  experiment: Experiment,
  tokenizer: Tokenizer,
  mesh: Mesh,
  examples: Sequence[Example],
) -> dict[str, list[Batch]]:
  """This process's rows of each variant of the prompts, one example a row."""
  prefixes = {
    'right': [example.prefix for example in examples],
    'wrong': [_other_prefix(examples, i) for i in range(len(examples))],
    'no': [() for _ in examples],
  }
  layout = experiment.layout()
  slots = {
    name: [
      lay_out(dataclasses.replace(example, prefix=prefix), tokenizer, layout)
      for example, prefix in zip(examples, variant, strict=True)
    ]
    for name, variant in prefixes.items()
  }
  longest = max(
    needs_of(s).length for variant in slots.values() for s in variant
  )
  length = -(-longest // PREFIX_MULTIPLE) * PREFIX_MULTIPLE
  row = RowCapacity(length, 0, 0, 1)
  size = experiment.data.batch_rows
  own = local_rows(mesh, size)
  empty, _ = pack([], 1, row, layout, tokenizer.pad_id)

  def batch(variant: list) -> Batch:
    rows = [
      pack([variant[r]], 1, row, layout, tokenizer.pad_id)[0]
      if r < len(variant)
      else empty
      for r in own
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)

  return {
    name: [
      batch(variant[first : first + size])
      for first in range(0, len(variant), size)
    ]
    for name, variant in slots.items()
  }


def _other_prefix(examples: Sequence[Example], index: int) -> tuple:
  """The prefix of another image, by the same artist if possible."""
  own = examples[index]
  artist = own.facts.get('artist', '')
  after = [*examples[index + 1 :], *examples[:index]]
  others = [e for e in after if e.prefix != own.prefix]
  alike = [e for e in others if e.facts.get('artist', '') == artist]
  return next(iter(alike or others), own).prefix
