"""Edits, judged on known images."""

import collections

import pytest

from tests.evaluation import fakes
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.drawing import draw
from unifluid_jax.data.emoji.tasks.object_edits import EXACT, list_edits
from unifluid_jax.evaluation.editing_metrics import evaluate_editing


@pytest.fixture(scope='module')
def result(oracle):
  return evaluate_editing(oracle, EvaluationConfig(edits=10_000))


def test_true_edits_are_all_right(result, emoji):
  counts = {kind: len(list_edits(kind, emoji, 'pair')) for kind in EXACT}
  assert result.measures['edit_exact_nn'].value == 1
  for kind in EXACT:
    measure = result.measures[f'edit_exact/{kind}']
    assert (measure.value, measure.count) == (1.0, counts[kind])


def test_an_image_left_alone_is_right_only_if_its_edit_shows_nothing(
  experiment, config
):
  class Lazy(fakes.FakeModel):
    def edited(self, image, instruction):
      return image

  result = evaluate_editing(Lazy(experiment), config)
  same = [
    bool((draw(e.source, 16) == draw(e.target, 16)).all()) for e in result.edits
  ]
  assert result.rights == same
  baseline = result.measures['edit_copy_baseline']
  assert baseline.value == result.measures['edit_exact_nn'].value


def test_white_images_are_wrong(experiment, config):
  result = evaluate_editing(fakes.FakeModel(experiment), config)
  assert result.measures['edit_exact_nn'].value == 0


def test_pairs_are_capped(oracle):
  result = evaluate_editing(oracle, EvaluationConfig(edits=20))
  assert len(set(result.edits)) == 20


def test_without_skin_tones_there_is_no_such_edit(config):
  model = fakes.Oracle(fakes.make_experiment('untoned few'))
  result = evaluate_editing(model, config)
  kinds = collections.Counter(edit.kind for edit in result.edits)
  assert set(kinds) == {'background', 'flip'}
  assert 'edit_exact/tone' not in result.measures
  assert result.measures['edit_exact_nn'].value == 1
