"""Epochs of sources, and the warning about the learning rate."""

import logging

import pytest

from experiments import night, quickstart
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.training.exposure import epochs, log_exposure, rate_ratio


def prepare(config, **sizes):
  experiment = build(Experiment, config)
  names = experiment.data.sources
  return experiment, {name: range(sizes.get(name, 100)) for name in names}


def test_epochs_are_examples_by_share_over_records():
  config = quickstart.get_config()
  config.training.steps = 1000
  config.data.examples = 50
  for name in config.data.sources:
    config.data.sources[name].weight = 0.0
  config.data.sources.text_to_image.weight = 3.0
  config.data.sources.captioning.weight = 1.0
  experiment, tasks = prepare(config, text_to_image=250)
  assert epochs(experiment, tasks) == pytest.approx(
    {'text_to_image': 150.0, 'captioning': 125.0}
  )
  rate = experiment.optimizer.learning_rate
  assert rate_ratio(experiment, tasks) == pytest.approx(rate * 250 / 37.5)


@pytest.mark.parametrize(
  ('records', 'rate', 'steps', 'warns'),
  [
    (3200, 1.5e-3, 16_000, True),
    (3200, 1e-4, 16_000, False),
    (179, 1.5e-3, 2500, False),
    (3200, 1.5e-3, 100, False),  # too few epochs to learn any by heart
  ],
)
def test_a_rate_too_high_for_the_images_is_told(
  records, rate, steps, warns, caplog
):
  config = night.get_config()
  config.optimizer.learning_rate = rate
  config.training.steps = steps
  experiment, tasks = prepare(config, text_to_image=records)
  with caplog.at_level(logging.INFO):
    log_exposure(experiment, tasks)
  assert ('lower the learning rate' in caplog.text) == warns
  assert f'source text_to_image: {records} records' in caplog.text
