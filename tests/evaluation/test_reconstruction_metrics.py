"""PSNR against its closed form."""

import numpy as np
import pytest

from tests.evaluation import fakes
from unifluid_jax.data.emoji.drawing import draw
from unifluid_jax.data.emoji.splits import Cell, split_of
from unifluid_jax.evaluation.bank import emoji_of
from unifluid_jax.evaluation.reconstruction_metrics import (
  evaluate_reconstruction,
)


def test_white_images_have_the_psnr_of_the_closed_form(experiment):
  result = evaluate_reconstruction(fakes.FakeModel(experiment))
  drawings = np.stack([draw(p, 16) for p in result.pictures]).astype(float)
  errors = ((255 - drawings) ** 2).mean((1, 2, 3))
  expected = 10 * np.log10(255**2 / errors)
  np.testing.assert_allclose(result.psnr, expected, rtol=1e-4)
  measure = result.measures['vae_psnr_heldout_db']
  assert measure.value == pytest.approx(expected.mean(), rel=1e-4)
  assert (result.images == 255).all()


def test_pictures_are_untoned_and_of_held_out_concepts(experiment):
  pictures = evaluate_reconstruction(fakes.FakeModel(experiment)).pictures
  assert len(set(pictures)) == len(pictures) > 300
  for picture in pictures:
    emoji = emoji_of(picture)
    assert emoji.tone == ''
    assert split_of(Cell(picture.artist, emoji.base)) == 'concept'


def test_no_error_is_a_hundred_decibel(oracle):
  result = evaluate_reconstruction(oracle)
  assert result.measures['vae_psnr_heldout_db'].value == pytest.approx(100)
