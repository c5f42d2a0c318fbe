"""Answers, judged on known texts."""

import collections

import numpy as np
import pytest

from tests.evaluation import fakes
from tests.evaluation.test_bank import brute_force
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.data.emoji.drawing import draw, list_drawings
from unifluid_jax.data.emoji.splits import cells_of
from unifluid_jax.data.emoji.tasks.vqa import WORDINGS, YES_NO
from unifluid_jax.evaluation.bank import emoji_of
from unifluid_jax.evaluation.vqa_metrics import evaluate_vqa


@pytest.fixture(scope='module')
def result(oracle, config):
  return evaluate_vqa(oracle, config)


def groups_of(split, emoji):
  return [emoji_of(p).group for p in list_drawings(emoji, split)]


def test_true_categories_are_all_right(result, emoji):
  measure = result.measures['vqa_category_heldout']
  assert measure == result.measures['vqa_heldout/category']
  assert (measure.value, measure.count) == (1.0, len(groups_of('cell', emoji)))
  assert measure.chance == 1 / len(set(groups_of('train', emoji)))


def test_who_always_says_yes_is_right_in_half_of_the_yes_no_questions(result):
  kinds = {
    name.split('/')[1] for name in result.measures if '_heldout/' in name
  }
  assert kinds == set(WORDINGS)
  for kind in kinds - {'category'}:
    value = result.measures[f'vqa_heldout/{kind}'].value
    assert value == (0.5 if kind in YES_NO else 0), kind


def test_category_baselines(result, emoji):
  by_cell = [
    load_catalog().emojis[cell.base].group for cell in cells_of(emoji, 'train')
  ]
  (majority, _), *_ = collections.Counter(by_cell).most_common()
  # Hands have six skin tones each, which must not make their category win.
  ((by_image, _),) = collections.Counter(groups_of('train', emoji)).most_common(
    1
  )
  assert majority != by_image
  held_out = groups_of('cell', emoji)
  assert result.measures['vqa_category_majority'].value == pytest.approx(
    held_out.count(majority) / len(held_out)
  )
  training = list_drawings(emoji, 'train')
  neighbors = [
    emoji_of(brute_force(draw(p, 16), training).pop()).group
    for p in list_drawings(emoji, 'cell')
  ]
  right = np.equal(neighbors, held_out).mean()
  assert result.measures['vqa_category_nn_baseline'].value == right


def test_the_majority_counts_a_cell_once_in_every_type(result, emoji):
  for kind, field in ('kind', 'subgroup'), ('name', 'concept'):
    answers = collections.Counter(
      getattr(load_catalog().emojis[cell.base], field)
      for cell in cells_of(emoji, 'train')
    )
    majority = answers.most_common(1)[0][0]
    held_out = [
      getattr(emoji_of(p), field) for p in list_drawings(emoji, 'cell')
    ]
    assert result.measures[f'vqa_majority/{kind}'].value == pytest.approx(
      held_out.count(majority) / len(held_out)
    )


def test_questions_are_capped_by_type(oracle):
  result = evaluate_vqa(oracle, EvaluationConfig(questions=4))
  kinds = collections.Counter(a.question.kind for a in result.heldout)
  assert set(kinds) == set(WORDINGS)
  assert set(kinds.values()) == {3, 4}  # three hearts are held out


def test_without_skin_tones_nobody_asks_for_them(config):
  model = fakes.Oracle(fakes.make_experiment('untoned few'))
  measures = evaluate_vqa(model, config).measures
  assert 'vqa_heldout/tone' not in measures
  assert 'vqa_heldout/count' in measures
