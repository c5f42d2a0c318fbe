"""Captions, judged on known texts."""

import dataclasses

import numpy as np
import pytest

from tests.evaluation import fakes
from tests.evaluation.test_bank import brute_force
from unifluid_jax.data.emoji.drawing import draw, list_drawings
from unifluid_jax.evaluation.bank import emoji_of
from unifluid_jax.evaluation.captioning_metrics import evaluate_captioning


@pytest.fixture(scope='module')
def result(oracle, config):
  return evaluate_captioning(oracle, config)


def test_true_names_are_all_right(result, emoji):
  held_out = list_drawings(emoji, 'cell')
  untoned = [p for p in held_out if not emoji_of(p).tone]
  assert 0 < len(untoned) < len(held_out)
  found = {name: (m.value, m.count) for name, m in result.measures.items()}
  del found['caption_heldout_nn_baseline']
  assert found == {
    'caption_train_exact': (1.0, len(list_drawings(emoji, 'train'))),
    'caption_heldout_exact': (1.0, len(held_out)),
    'caption_heldout_exact_untoned': (1.0, len(untoned)),
  }


def test_the_baseline_names_the_nearest_training_image(result, emoji):
  training = list_drawings(emoji, 'train')
  rights = []
  for captioned in result.heldout:
    found = brute_force(draw(captioned.picture, 16), training)
    (name,) = {emoji_of(p).name for p in found}
    rights.append(name in captioned.references)
  measure = result.measures['caption_heldout_nn_baseline']
  assert 0 < np.mean(rights) < 1
  assert measure.value == pytest.approx(np.mean(rights))


def test_other_references_count_and_other_names_do_not(experiment, config):
  class Knows(fakes.Oracle):
    def named(self, image):
      picture = self.seen(image)
      fox = emoji_of(picture).concept == 'fox'
      return f'a {picture.artist} emoji of fox' if fox else 'fox'

  result = evaluate_captioning(Knows(experiment), config)
  rights = [c.right for c in result.train]
  foxes = [emoji_of(c.picture).concept == 'fox' for c in result.train]
  assert any(foxes)
  assert rights == foxes


def test_captions_are_capped(oracle, config):
  capped = dataclasses.replace(config, captions=5)
  result = evaluate_captioning(oracle, capped)
  assert len(result.train) == len(result.heldout) == 5


def test_a_small_sample_may_have_no_image_without_skin_tone(oracle, config):
  tones = set()
  for seed in range(6):
    one = dataclasses.replace(config, captions=1, seed=seed)
    result = evaluate_captioning(oracle, one)
    toned = bool(emoji_of(result.heldout[0].picture).tone)
    tones.add(toned)
    assert ('caption_heldout_exact_untoned' in result.measures) != toned
    assert result.measures['caption_heldout_exact'].value == 1
  assert tones == {False, True}
