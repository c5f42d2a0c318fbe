"""From tasks to batches: shuffle, mix, build, lay out, pack, shard, prefetch.

Everything is random access: example i of the mixture is a function of (seed,
i), a group of rows packs a fixed window of examples, and the batch of a step is
a fixed run of groups, of which each process takes its share:

    step                        0                       1
    group                 0     1     2     3     4     5     6     7   ...
    2 processes         [-- 0 ----] [-- 1 ----] [-- 0 ----] [-- 1 ----]

So the batch of a step depends neither on the number of processes or workers nor
on what was read before, and the whole state is one integer: the next step.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt8

from unifluid_jax.batch import Batch
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.layout import LayoutConfig, Slots, drop_prefix, lay_out
from unifluid_jax.data.packing import RowConfig, pack
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError

# An example, and the generator that its further draws come from.
Drawn = tuple[Example, np.random.Generator]

# Batches being read at once, and held ready, by each process that reads.
READ = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
  """What a batch is made of. Numbers are per step, over all processes.

  Attributes:
    seed: Seed of the order and of every draw.
    weights: For each task, its share of the examples, up to a factor.
    examples: Examples, before those that do not fit are dropped.
    rows: Rows of the batch.
    groups: Groups of rows that are packed on their own. The number of
      processes must divide it; fewer groups pack better.
    row: What a row has room for.
    drop_prefix: Probability of an empty prefix for an image target.
    num_workers: Processes that read ahead; 0 for threads only.
  """

  seed: int
  weights: Mapping[str, float]
  examples: int
  rows: int
  groups: int
  row: RowConfig
  drop_prefix: float
  num_workers: int = 0


def make_batches(
  config: PipelineConfig,
  layout: LayoutConfig,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[tuple[Batch, int]]:
  """Endless batches from a step on.

  Args:
    config: What a batch is made of.
    layout: Sizes of the parts of an example.
    tasks: The tasks that `config.weights` names.
    tokenizer: Encodes the texts.
    start_step: The first step; restoring a run is starting at its next step.
    process_index: This process among those that share a batch.
    process_count: Number of those; the rows of process 0 come first.

  Returns:
    An iterator over this process's rows of each step, and the number of its
    examples that were dropped because no row had room for them. `close()` ends
    its threads and workers.

  Raises:
    UserError: If numbers do not divide or a weight names no task.
  """
  _check(config, tasks, process_count)
  # Module-level functions, since worker processes must be able to import them.
  lay_out_example = functools.partial(
    _lay_out, config.drop_prefix, tokenizer, layout
  )
  pack_group = functools.partial(
    pack,
    rows=config.rows // config.groups,
    row=config.row,
    layout=layout,
    pad_id=tokenizer.pad_id,
  )
  group = config.examples // config.groups
  share = config.groups // process_count
  shares = (
    _mixture(config.seed, config.weights, tasks)
    .map(lay_out_example)
    .batch(group, drop_remainder=True, batch_fn=pack_group)
    .batch(share, drop_remainder=True, batch_fn=_concatenate)
  )
  steps = shares[process_index::process_count][start_step:]
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags, app or not.
  workers = grain.MultiprocessingOptions(num_workers=config.num_workers)
  return iter(steps.to_iter_dataset(READ).mp_prefetch(workers))


def make_image_batches(
  seed: int,
  weights: Mapping[str, float],
  tasks: Mapping[str, Task],
  size: int,
  start_step: int = 0,
) -> grain.DatasetIterator[UInt8[np.ndarray, 'B S S 3']]:
  """Endless batches of the images that tasks write, to train a VAE on.

  Args:
    seed: Seed of the order and of every draw.
    weights: For each task, its share of the images, up to a factor.
    tasks: The tasks that `weights` names.
    size: Images of a batch.
    start_step: The first step.
  """
  _check_weights(weights, tasks)
  batches = (
    _mixture(seed, weights, tasks)
    .map(_written_image)
    .batch(size, drop_remainder=True, batch_fn=np.stack)
  )
  return iter(batches[start_step:].to_iter_dataset(READ))


def _mixture(
  seed: int, weights: Mapping[str, float], tasks: Mapping[str, Task]
) -> grain.MapDataset[Drawn]:
  """Endless examples; each epoch of a task is shuffled anew."""

  def records_of(name: str) -> grain.MapDataset:
    task = tasks[name]
    task_seed = np.random.SeedSequence((seed, *name.encode()))
    return (
      grain.MapDataset.source(task)
      .shuffle(int(task_seed.generate_state(1)[0]))
      .repeat()
      .map(lambda record: (task, record))
    )

  names = sorted(weights)
  mixture = grain.MapDataset.mix(
    [records_of(name) for name in names],
    [weights[name] for name in names],
  )
  return mixture.map_with_index(functools.partial(_build, seed))


def _build(seed: int, index: int, task_and_record: tuple[Task, Any]) -> Drawn:
  """Example `index` of the mixture; all draws come from (seed, index)."""
  task, record = task_and_record
  rng = np.random.default_rng((seed, index))
  return task.build(record, rng, augment=True), rng


def _lay_out(
  probability: float, tokenizer: Tokenizer, layout: LayoutConfig, drawn: Drawn
) -> Slots:
  """The slots of an example, which may lose its prefix."""
  example, rng = drawn
  return lay_out(drop_prefix(example, probability, rng), tokenizer, layout)


def _written_image(drawn: Drawn) -> Image:
  """The image that an example writes."""
  example, _ = drawn
  if isinstance(example.target, str):
    raise UserError(
      f'the task {example.task!r} writes texts; a VAE learns from tasks that '
      'write images'
    )
  return example.target


def _concatenate(groups: Sequence[tuple[Batch, int]]) -> tuple[Batch, int]:
  """Groups of rows as one batch."""
  batches, dropped = zip(*groups, strict=True)
  leaves = (np.concatenate(leaf) for leaf in zip(*batches, strict=True))
  return Batch(*leaves), sum(dropped)


def _check(
  config: PipelineConfig, tasks: Mapping[str, Task], process_count: int
) -> None:
  """Refuses numbers that do not divide and weights without a task."""
  _check_divides('examples', config.examples, 'groups', config.groups)
  _check_divides('rows', config.rows, 'groups', config.groups)
  _check_divides('groups', config.groups, 'processes', process_count)
  _check_weights(config.weights, tasks)


def _check_weights(
  weights: Mapping[str, float], tasks: Mapping[str, Task]
) -> None:
  """Refuses weights without a task, without records, or not positive."""
  for name, weight in weights.items():
    if name not in tasks:
      raise UserError(
        f'there is no task {name!r} to give a weight; there are {list(tasks)}'
      )
    if not len(tasks[name]):
      raise UserError(f'the task {name!r} has no records; drop its weight')
    if weight <= 0:
      raise UserError(
        f'the weight of task {name!r} is {weight}; make it positive, or drop it'
      )


def _check_divides(what: str, number: int, unit: str, count: int) -> None:
  """Refuses a number that does not split evenly."""
  if number % count or not number:
    below = number // count * count
    nearest = [n for n in (below, below + count) if n]
    raise UserError(
      f'{number} {what} do not split evenly over {count} {unit}; the nearest '
      f'numbers of {what} that do: {", ".join(map(str, nearest))}'
    )
