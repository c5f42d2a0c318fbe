"""Text to image, judged on known images."""

import dataclasses

import numpy as np
import pytest

from tests.evaluation import fakes
from tests.evaluation.test_bank import brute_force
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import draw
from unifluid_jax.data.emoji.splits import cells_of
from unifluid_jax.evaluation.bank import drawings_of, emoji_of
from unifluid_jax.evaluation.text_to_image_metrics import (
  decodings,
  evaluate_text_to_image,
)


@pytest.fixture(scope='module')
def result(oracle, config):
  return evaluate_text_to_image(oracle, config)


def test_true_drawings_are_all_right(result):
  shares = {k: m.value for k, m in result.measures.items() if 'concept' in k}
  assert len(shares) == 7 and set(shares.values()) == {1.0}
  for split in ('train', 'heldout'):
    assert result.measures[f't2i_{split}_psnr_db'].value == 100


def test_every_training_cell_is_asked_for_toned_ones_twice(result, emoji):
  cells = cells_of(emoji, 'train')
  toned = [cell for cell in cells if len(cell.members()) > 1]
  prompts = result.generations['train', ''].prompts
  assert result.measures['t2i_train_nn_concept'].count == len(
    cells + tuple(toned)
  )
  assert len(set(prompts.texts)) == len(prompts.texts)
  assert sum('skin tone' in text for text in prompts.texts) == len(toned)


def test_held_out_cells_are_asked_for_several_times(result, oracle, emoji):
  prompts = result.generations['heldout', ''].prompts
  assert [(p.artist, p.hex) for p in prompts.wanted] == [
    *cells_of(emoji, 'cell')
  ]
  assert result.measures['t2i_heldout_nn_concept'].count == 2 * len(
    prompts.texts
  )
  steps = {(c['samples'], c['sampling'].steps) for c in oracle.calls}
  tokens = oracle.experiment.grid**2
  assert steps == {(1, None), (1, tokens // 3), (2, None), (2, tokens // 3)}


def test_held_out_cells_are_asked_for_on_every_background(result, emoji):
  prompts = result.composed.prompts
  assert {(p.artist, p.hex, p.background) for p in prompts.wanted} == {
    (cell.artist, cell.base, background)
    for cell in cells_of(emoji, 'cell')
    for background in BACKGROUNDS
    if background != 'white'
  }
  assert any('on a pink background' in t for t in prompts.texts)
  # The nearest drawing is on the background that was asked for.
  assert [found[0] for found in result.composed.found] == prompts.wanted


def test_white_images_show_what_brute_force_says(experiment, config):
  model = fakes.FakeModel(experiment)
  result = evaluate_text_to_image(model, config)
  everything = drawings_of('drawn_alike')
  white = np.full((16, 16, 3), 255, np.uint8)
  shown = {emoji_of(p).concept for p in brute_force(white, everything)}
  generation = result.generations['train', '']
  asked = [emoji_of(p).concept for p in generation.prompts.wanted]
  rights = [concept in shown for concept in asked]
  assert generation.rights == rights
  measure = result.measures['t2i_train_nn_concept']
  assert measure.value == pytest.approx(np.mean(rights))
  wanted = [draw(p, 16) / 255 for p in generation.prompts.wanted]
  errors = [np.square(1 - image).mean() for image in wanted]
  assert result.measures['t2i_train_psnr_db'].value == pytest.approx(
    np.mean(-10 * np.log10(errors)), rel=1e-4
  )
  concepts = [emoji_of(p).concept for p in everything]
  chances = [concepts.count(concept) / len(concepts) for concept in asked]
  assert measure.chance == pytest.approx(np.mean(chances))


def test_prompts_are_capped(oracle, config):
  capped = dataclasses.replace(config, prompts=3)
  result = evaluate_text_to_image(oracle, capped)
  counts = {name: m.count for name, m in result.measures.items()}
  assert counts['t2i_train_nn_concept'] == 3
  assert counts['t2i_heldout_nn_concept_parallel'] == 6


def test_an_image_of_one_token_takes_one_step(experiment):
  data = dataclasses.replace(experiment.data, image_size=8)
  encoder = dataclasses.replace(experiment.model.encoder, image_size=8)
  model = dataclasses.replace(experiment.model, encoder=encoder)
  small = dataclasses.replace(experiment, data=data, model=model)
  assert decodings(small)['_parallel'].steps == 1
