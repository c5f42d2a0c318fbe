"""From tasks to batches: shuffle, mix, build, lay out, pack, shard, prefetch.

Everything is random access: example i of the mixture is a function of (seed,
i), a group of rows packs a fixed window of examples, and the batch of a step is
a fixed run of groups. A process names the rows of the batch that it wants, and
packs the groups that these are of:

    step                0                       1
    group               0     1     2     3     4     5     6     7    ...
    row                 0  1  2  3  4  5  6  7  0  1  2  3  4  5  6  7 ...
    rows 0, 1, 4, 5     x  x        x  x        x  x        x  x

So the batch of a step depends neither on the number of processes or workers nor
on what was read before, and the whole state is one integer: the next step.
"""

import dataclasses
import functools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt8

from unifluid_jax.batch import Batch
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.layout import (
  LayoutConfig,
  Slots,
  drop_condition,
  lay_out,
)
from unifluid_jax.data.packing import RowCapacity, check_fits, needs_of, pack
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import Collector, UserError

# An example, and the generator that its further draws come from.
SampledTask = tuple[Example, np.random.Generator]

_MOST_APART = 1e9
"""Most that one task's weight may be of another's."""

# Batches being read at once, and held ready, by each process that reads.
READ = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
  """What a batch is made of. Numbers are per step, over all processes.

  Attributes:
    seed: Seed of the order and of every draw.
    weights: For each task, its share of the examples, up to a factor.
    examples: Examples, before those that do not fit are dropped.
    batch_rows: Rows of the batch.
    packing_windows: Windows of rows that are packed independently; fewer pack
      better. A process packs every window that it has a row of, so there
      should be as many windows as processes, or more.
    row_capacity: What a row has room for.
    cond_drop_prob: Probability of an empty prefix for an image target.
    num_workers: Processes that read ahead; 0 for threads only.
  """

  seed: int
  weights: Mapping[str, float]
  examples: int
  batch_rows: int
  packing_windows: int
  row_capacity: RowCapacity
  cond_drop_prob: float
  num_workers: int = 0


def make_batches(
  config: PipelineConfig,
  layout: LayoutConfig,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  start_step: int = 0,
  rows: Sequence[int] | None = None,
) -> grain.DatasetIterator[tuple[Batch, int]]:
  """Endless batches from a step on.

  Args:
    config: What a batch is made of.
    layout: Sizes of the parts of an example.
    tasks: The tasks that `config.weights` names.
    tokenizer: Encodes the texts.
    start_step: The first step; restoring a run is starting at its next step.
    rows: Which rows of the batch to give, in rising order; None for all.

  Returns:
    An iterator over these rows of each step, and the number of examples of
    their groups that were dropped because no row had room for them. `close()`
    ends its threads and workers.

  Raises:
    UserError: Numbers do not divide or a weight names no task; from the
      iterator, if an example's text is too long or no row has room for it.
  """
  check_mixture(config, tasks)
  # Module-level functions, since worker processes must be able to import them.
  lay_out_example = functools.partial(
    _lay_out, config.cond_drop_prob, tokenizer, layout, config.row_capacity
  )
  height = config.batch_rows // config.packing_windows
  pack_group = functools.partial(
    pack,
    rows=height,
    row=config.row_capacity,
    layout=layout,
    pad_id=tokenizer.pad_id,
  )
  groups = (
    _mixture(config.seed, config.weights, tasks)
    .map(lay_out_example)
    .batch(
      config.examples // config.packing_windows,
      drop_remainder=True,
      batch_fn=pack_group,
    )
  )
  rows = range(config.batch_rows) if rows is None else rows
  wanted = sorted({row // height for row in rows})
  keep = [wanted.index(row // height) * height + row % height for row in rows]
  shares = grain.MapDataset.source(
    _Shares(groups, config.packing_windows, wanted)
  )
  steps = shares.map(functools.partial(_concatenate, keep))
  return _read_ahead(steps[start_step:], config.num_workers)


def _read_ahead(
  steps: grain.MapDataset, num_workers: int
) -> grain.DatasetIterator:
  """Makes the batches of the next steps while this one's is used."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags, app or not.
  workers = grain.MultiprocessingOptions(num_workers=num_workers)
  return iter(steps.to_iter_dataset(READ).mp_prefetch(workers, _init_worker))


def _init_worker(index: int, count: int) -> None:
  """A worker ends with its process, also if that is killed, and never before.

  Signals to stop reach all processes of a machine or of a terminal; the one
  that trains needs batches until it has saved.
  """
  del index, count
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  owner = multiprocessing.parent_process()
  assert owner is not None

  def follow():
    owner.join()
    os._exit(0)

  threading.Thread(target=follow, daemon=True).start()


def make_image_batches(
  seed: int,
  weights: Mapping[str, float],
  tasks: Mapping[str, Task],
  size: int,
  start_step: int = 0,
  rows: Sequence[int] | None = None,
  num_workers: int = 0,
) -> grain.DatasetIterator[UInt8[np.ndarray, 'B S S 3']]:
  """Endless batches of the images that tasks write, to train a VAE on.

  Args:
    seed: Seed of the order and of every draw.
    weights: For each task, its share of the images, up to a factor.
    tasks: The tasks that `weights` names.
    size: Images of a batch.
    start_step: The first step.
    rows: Which images of the batch to give, in rising order; None for all.
    num_workers: Processes that read ahead; 0 for threads only.

  Returns:
    An iterator, whose `close()` ends its threads and workers.
  """
  check_weights(weights, tasks)
  images = _mixture(seed, weights, tasks).map(_written_image)
  rows = range(size) if rows is None else rows
  shares = grain.MapDataset.source(_Shares(images, size, rows))
  return _read_ahead(shares.map(np.stack)[start_step:], num_workers)


@dataclasses.dataclass(frozen=True)
class _Shares:
  """Of each run of `size` items, those at the `wanted` places."""

  items: grain.MapDataset
  size: int
  wanted: Sequence[int]

  def __len__(self) -> int:
    return len(self.items) // self.size

  def __getitem__(self, step: int) -> list[Any]:
    return [self.items[step * self.size + place] for place in self.wanted]


def _mixture(
  seed: int, weights: Mapping[str, float], tasks: Mapping[str, Task]
) -> grain.MapDataset[SampledTask]:
  """Returns endless examples; each epoch of a task has a new order."""

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


def _build(
  seed: int, index: int, task_and_record: tuple[Task, Any]
) -> SampledTask:
  """Example `index` of the mixture; all draws come from (seed, index)."""
  task, record = task_and_record
  rng = np.random.default_rng((seed, index))
  return task.build(record, rng, augment=True), rng


def _lay_out(
  probability: float,
  tokenizer: Tokenizer,
  layout: LayoutConfig,
  row_capacity: RowCapacity,
  drawn: SampledTask,
) -> Slots:
  """The slots of an example, which may lose its prefix."""
  example, rng = drawn
  try:
    slots = lay_out(
      drop_condition(example, probability, rng), tokenizer, layout
    )
    check_fits(needs_of(slots), row_capacity)
  except UserError as error:
    where = example.place or f'the task {example.task!r}'
    raise UserError(f'{where}: {error}') from error
  return slots


def _written_image(drawn: SampledTask) -> Image:
  """Returns the target image of an example."""
  example, _ = drawn
  if isinstance(example.target, str):
    raise UserError(
      f'the task {example.task!r} writes texts; a VAE learns from tasks that '
      'write images'
    )
  return example.target


def _concatenate(
  keep: Sequence[int], groups: Sequence[tuple[Batch, int]]
) -> tuple[Batch, int]:
  """Of groups of rows, those to keep, as one batch."""
  batches, dropped = zip(*groups, strict=True)
  leaves = (np.concatenate(leaf)[keep] for leaf in zip(*batches, strict=True))
  return Batch(*leaves), sum(dropped)


def check_mixture(config: PipelineConfig, tasks: Mapping[str, Task]) -> None:
  """Rejects numbers that do not divide and weights without a task.

  Raises:
    UserError: With the numbers, or the name of the task.
  """
  problems = Collector()
  with problems.catch():
    check_groups(config.examples, config.batch_rows, config.packing_windows)
  with problems.catch():
    check_weights(config.weights, tasks)
  problems.check()


def check_groups(examples: int, rows: int, groups: int) -> None:
  """Rejects examples and rows that do not split evenly over the groups.

  Raises:
    UserError: With the numbers.
  """
  problems = Collector()
  for what, number in (('examples', examples), ('rows', rows)):
    with problems.catch():
      _check_divides(what, number, 'groups', groups)
  problems.check()


def check_weights(
  weights: Mapping[str, float], tasks: Mapping[str, Task]
) -> None:
  """Rejects weights without a task or records, not positive, or far apart.

  Raises:
    UserError: With the name of the task.
  """
  if not weights:
    raise UserError('there are no sources to make examples of')
  problems = Collector()
  for name, weight in weights.items():
    with problems.catch():
      _check_weight(name, weight, tasks)
  problems.check()
  low, high = (pick(weights, key=weights.__getitem__) for pick in (min, max))
  if weights[high] > _MOST_APART * weights[low]:
    raise UserError(
      f'the weights of tasks {low!r} and {high!r}, {weights[low]} and '
      f'{weights[high]}, are more than {_MOST_APART:g} times apart; drop the '
      'first, which would hardly be seen'
    )


def _check_weight(name: str, weight: float, tasks: Mapping[str, Task]) -> None:
  if name not in tasks:
    raise UserError(
      f'there is no task {name!r} to give a weight; there are {list(tasks)}'
    )
  if not len(tasks[name]):
    raise UserError(f'the task {name!r} has no records; drop its weight')
  if not 0 < weight < math.inf:
    raise UserError(
      f'the weight of task {name!r} is {weight}; make it positive and finite, '
      'or drop it'
    )


def _check_divides(what: str, number: int, unit: str, count: int) -> None:
  """Rejects a number that does not split evenly."""
  if number % count or not number:
    below = number // count * count
    nearest = [n for n in (below, below + count) if n]
    raise UserError(
      f'{number} {what} do not split evenly over {count} {unit}; the nearest '
      f'numbers of {what} that do: {", ".join(map(str, nearest))}'
    )
