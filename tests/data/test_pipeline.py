"""The pipeline: determinism, restarts, sharing among processes, mixture."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from tests.data.counting_task import CountingTask
from unifluid_jax.batch import Batch
from unifluid_jax.data.packing import RowCapacity
from unifluid_jax.data.pipeline import (
  PipelineConfig,
  make_batches,
  make_image_batches,
)
from unifluid_jax.utils.errors import UserError

TASKS = {
  'answers': CountingTask('answers', 900),
  'drawings': CountingTask('drawings', 700, target_size=4),
}
CONFIG = PipelineConfig(
  seed=3,
  weights={'answers': 3.0, 'drawings': 1.0},
  examples=12,
  batch_rows=4,
  packing_windows=4,
  row_capacity=RowCapacity(32, 8, 0, 3),
  cond_drop_prob=0.25,
)


@pytest.fixture
def run(tokenizer, layout):
  """Runs a pipeline for some steps; gives the batches and the drop counts."""
  open_iterators = []

  def run(steps, config=CONFIG, tasks=TASKS, **where):
    batches = make_batches(config, layout, tasks, tokenizer, **where)
    open_iterators.append(batches)
    return list(itertools.islice(batches, steps))

  yield run
  for batches in open_iterators:
    batches.close()


def assert_equal(one: list, other: list) -> None:
  assert len(one) == len(other)
  for (batch, dropped), (other_batch, other_dropped) in zip(
    one, other, strict=True
  ):
    assert dropped == other_dropped
    for name, leaf, other_leaf in zip(
      Batch._fields, batch, other_batch, strict=True
    ):
      np.testing.assert_array_equal(leaf, other_leaf, err_msg=name)


def prompts(batch: Batch, tokenizer) -> collections.Counter:
  """The prompts of a batch, as numbers; -1 where the prompt was dropped."""
  found = collections.Counter()
  for r, segments in enumerate(batch.segment_ids):
    for segment in range(1, segments.max() + 1):
      inside = (segments == segment) & (batch.mask_ar[r] == 0)
      letters = tokenizer.decode(batch.token_ids[r, inside]).strip('\n')
      digits = ''.join(str(ord(letter) - ord('a')) for letter in letters)
      found[int(digits or -1)] += 1
  return found


def test_the_same_seed_gives_the_same_batches(run):
  assert_equal(run(3), run(3))


def test_another_seed_gives_another_order_and_other_draws(run, tokenizer):
  config = dataclasses.replace(CONFIG, weights={'answers': 1.0})
  configs = [dataclasses.replace(config, seed=seed) for seed in (3, 4)]
  (one, _), (other, _) = (run(1, config=c)[0] for c in configs)
  assert prompts(one, tokenizer) != prompts(other, tokenizer)
  always_0 = {'answers': CountingTask('answers', 1)}
  (one, _), (other, _) = (run(1, config=c, tasks=always_0)[0] for c in configs)
  assert one.text_targets.tolist() != other.text_targets.tolist()


@pytest.mark.parametrize('start', [1, 4, 1_000_003])
def test_a_restart_continues_exactly(run, start):
  continued = run(3, start_step=start - 1)[1:]
  assert_equal(continued, run(2, start_step=start))


def test_steps_differ(run):
  (first, _), (second, _) = run(2)
  assert (first.token_ids != second.token_ids).any()


@pytest.mark.parametrize('groups', [1, 2, 4])
@pytest.mark.parametrize('rows', [[0, 1], [1], [0, 3], [1, 2, 3]])
def test_a_process_gets_its_rows_of_the_global_batch(run, groups, rows):
  config = dataclasses.replace(CONFIG, packing_windows=groups)
  whole = run(3, start_step=2, config=config)
  parts = run(3, start_step=2, config=config, rows=rows)
  for (batch, dropped), (part, part_dropped) in zip(whole, parts, strict=True):
    assert part_dropped <= dropped
    for leaf, part_leaf in zip(batch, part, strict=True):
      np.testing.assert_array_equal(leaf[rows], part_leaf)


def test_workers_change_nothing(run):
  workers = dataclasses.replace(CONFIG, num_workers=2)
  assert_equal(run(5, start_step=2), run(5, config=workers, start_step=2))


def test_an_epoch_shows_each_record_once_and_epochs_differ(run, tokenizer):
  tasks = {'answers': CountingTask('answers', 12)}
  config = dataclasses.replace(
    CONFIG,
    weights={'answers': 1.0},
    examples=4,
    packing_windows=1,
    cond_drop_prob=0.0,
  )
  steps = run(12, config=config, tasks=tasks)
  assert not any(dropped for _, dropped in steps)
  order = [prompts(batch, tokenizer) for batch, _ in steps]
  epochs = [order[i : i + 3] for i in range(0, 12, 3)]
  for epoch in epochs:
    assert sum(epoch, collections.Counter()) == dict.fromkeys(range(12), 1)
  assert any(epoch != epochs[0] for epoch in epochs[1:])


def test_proportions_of_the_mixture(run):
  written = answered = 0
  for batch, dropped in run(20):
    assert dropped == 0
    written += (batch.generated_slots >= 0).sum()
    answered += batch.text_weights.sum() / 2  # a letter and EOS
  assert written + answered == 20 * CONFIG.examples
  assert written == pytest.approx(20 * CONFIG.examples / 4, abs=2)


def test_prefixes_of_images_are_dropped_at_their_rate(run, tokenizer):
  config = dataclasses.replace(CONFIG, weights={'drawings': 1.0})
  found = sum(
    (prompts(batch, tokenizer) for batch, _ in run(20, config=config)),
    collections.Counter(),
  )
  assert found[-1] / found.total() == pytest.approx(0.25, abs=0.08)


def test_draws_differ_between_epochs_of_a_record(run):
  one = {'drawings': CountingTask('drawings', 1, target_size=4)}
  config = dataclasses.replace(CONFIG, weights={'drawings': 1.0})
  batch, _ = run(1, config=config, tasks=one)[0]
  shown = batch.generated_images[batch.generated_slots >= 0]
  assert len(np.unique(shown[:, 0, 0, 0])) > len(shown) / 2


def test_what_does_not_fit_is_counted(run):
  tight = dataclasses.replace(CONFIG, row_capacity=RowCapacity(14, 8, 0, 3))
  for batch, dropped in run(3, config=tight):
    assert dropped > 0
    assert batch.segment_ids.max(1).sum() + dropped == CONFIG.examples


@pytest.mark.parametrize('groups', [1, 12])
def test_windows_of_any_size(run, groups):
  config = dataclasses.replace(CONFIG, batch_rows=12, packing_windows=groups)
  batch, dropped = run(2, config=config, start_step=5)[1]
  assert dropped == 0
  assert batch.segment_ids.max(1).sum() == CONFIG.examples


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_of_a_record_arrives_as_it_is(run, workers):
  tasks = {'answers': CountingTask('answers', 10_000_000)}
  config = dataclasses.replace(
    CONFIG, weights={'answers': 1.0}, num_workers=workers
  )
  told = "the task 'answers': the text '.*' takes 7 tokens, more than max_text"
  with pytest.raises(UserError, match=told):
    run(1, config=config, tasks=tasks)


class PlacedTask(CountingTask):
  """A task that knows where its records are."""

  def build(self, record, rng, augment):
    example = super().build(record, rng, augment)
    return dataclasses.replace(example, place=f'record {record}')


def test_a_record_without_room_is_told_by_its_place(run):
  config = dataclasses.replace(CONFIG, weights={'answers': 1.0})
  config = dataclasses.replace(config, row_capacity=RowCapacity(32, 1, 0, 0))
  told = r'^record \d: an example needs text_targets = 2, but a row has 1'
  with pytest.raises(UserError, match=told):
    run(1, config=config, tasks={'answers': PlacedTask('answers', 9)})


def test_image_batches_are_the_written_images():
  tasks = {'drawings': CountingTask('drawings', 700, target_size=4)}
  batches = make_image_batches(3, {'drawings': 1.0}, tasks, 5)
  images = list(itertools.islice(batches, 3))
  batches.close()
  assert [(i.shape, i.dtype) for i in images] == [((5, 4, 4, 3), np.uint8)] * 3
  again = make_image_batches(3, {'drawings': 1.0}, tasks, 5, start_step=2)
  np.testing.assert_array_equal(next(again), images[2])
  again.close()
  part = make_image_batches(3, {'drawings': 1.0}, tasks, 5, 2, rows=[1, 4])
  np.testing.assert_array_equal(next(part), images[2][[1, 4]])
  part.close()
  by_workers = make_image_batches(
    3, {'drawings': 1.0}, tasks, 5, start_step=1, num_workers=2
  )
  for image, wanted in zip(by_workers, images[1:], strict=False):
    np.testing.assert_array_equal(image, wanted)
  by_workers.close()


def test_a_vae_does_not_learn_from_texts():
  batches = make_image_batches(3, {'answers': 1.0}, TASKS, 5)
  with pytest.raises(UserError, match="'answers' writes texts"):
    next(batches)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'examples': 14}, '14 examples .* 4 groups; .*: 12, 16'),
    ({'batch_rows': 3}, '3 rows .* 4 groups; .*: 4'),
    ({'weights': {'songs': 1.0}}, "no task 'songs'.*'answers', 'drawings'"),
    ({'weights': {'answers': 0.0}}, "weight of task 'answers' is 0.0"),
    ({'weights': {'empty': 1.0}}, "'empty' has no records"),
    (
      {'weights': {'answers': 1e-320, 'drawings': 1.0}},
      "weights of tasks 'answers' and 'drawings', 1e-320 and 1.0, .* apart",
    ),
  ],
)
def test_a_config_that_cannot_work(run, change, message):
  config = dataclasses.replace(CONFIG, **change)
  tasks = TASKS
  if 'empty' in config.weights:
    tasks = {'empty': CountingTask('empty', 0)}
  with pytest.raises(UserError, match=message):
    run(1, config=config, tasks=tasks)
