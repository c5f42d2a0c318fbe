"""A few concepts, so that whole banks are drawn in no time."""

import pytest

from tests.evaluation import fakes
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji import concepts as concepts_lib
from unifluid_jax.evaluation import bank, text_to_image_metrics

FEW = concepts_lib.DRAWN_ALIKE[:40]
"""The first ten have skin tones."""


@pytest.fixture(scope='package', autouse=True)
def few():
  """Small sets of concepts, and those drawn alike as the whole catalog."""
  patch = pytest.MonkeyPatch()
  sets = concepts_lib.CONCEPT_SETS
  patch.setitem(sets, 'few', lambda emoji: emoji.concept in FEW)
  patch.setitem(sets, 'untoned few', lambda emoji: emoji.concept in FEW[10:])

  def drawings_of(concepts):
    return bank.drawings_of('drawn_alike' if concepts == 'all' else concepts)

  patch.setattr(text_to_image_metrics, 'drawings_of', drawings_of)
  yield
  patch.undo()


@pytest.fixture(scope='package')
def experiment(few):
  """An experiment on a few concepts, with and without skin tones."""
  return fakes.make_experiment('few')


@pytest.fixture(scope='package')
def emoji(experiment):
  """What the experiment is on."""
  return experiment.emoji()


@pytest.fixture(scope='package')
def oracle(experiment):
  """A model that knows every drawing."""
  return fakes.Oracle(experiment)


@pytest.fixture(scope='package')
def config():
  """Two samples a prompt."""
  return EvaluationConfig(samples=2)
