"""Limits that are 'auto': set from the texts, kept by the run."""

import json

import pytest

from tests.configs import tiny
from tests.training.folders import own_config, write_lines
from tests.vocabulary import make_tokenizer
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.counting import Limits
from unifluid_jax.data.pipeline import make_batches
from unifluid_jax.training.preflight import check_start
from unifluid_jax.training.text_limits import is_set, with_recorded_limits
from unifluid_jax.utils.errors import UserError
from unifluid_jax.workdir.run_config import read_experiment, write_config


def auto(config):
  """The config with every limit 'auto'."""
  config.data.max_text = 'auto'
  config.data.row_capacity.update(length='auto', text_targets='auto')
  return config


def limits_of(experiment) -> Limits:
  row = experiment.data.row_capacity
  return Limits(experiment.data.max_text, row.length, row.text_targets)


def start(config, workdir):
  return check_start(build(Experiment, config), workdir, trains_vae=True)


@pytest.fixture
def captions(tmp_path):
  """A file of captions of 1 to 40 tokens: each digit is one."""
  return write_lines(tmp_path, ['1' * n for n in range(1, 41)])


def test_limits_fit_all_texts_and_the_examples_of_a_step(captions, tmp_path):
  config = auto(own_config(captions))
  config.data.update(examples=24, batch_rows=6)
  config.data.row_capacity.update(understanding_images=6, generated_images=6)
  found = start(config, tmp_path / 'run')
  experiment = found.experiment
  assert is_set(experiment)
  assert experiment.data.max_text == 64  # of 40, in steps of 32
  assert all(isinstance(limit, int) for limit in limits_of(experiment))
  assert experiment.data.row_capacity.text_targets >= 41
  batches = make_batches(
    experiment.pipeline(), experiment.layout(), found.tasks, found.tokenizer
  )
  dropped = [next(batches)[1] for _ in range(20)]
  batches.close()
  assert sum(dropped) <= 0.05 * 20 * 24
  # They are those of a config that gives them as numbers.
  config.data.max_text = experiment.data.max_text
  config.data.row_capacity.update(
    length=experiment.data.row_capacity.length,
    text_targets=experiment.data.row_capacity.text_targets,
  )
  assert build(Experiment, config) == experiment


def test_one_limit_may_be_auto_and_the_others_numbers(captions, tmp_path):
  config = own_config(captions)
  config.data.row_capacity.length = 'auto'
  experiment = start(config, tmp_path / 'run').experiment
  assert experiment.data.max_text == 96
  assert experiment.data.row_capacity.text_targets == 64
  config.data.max_text = 39
  with pytest.raises(UserError, match=r'line 40: .* set data\.max_text = 40 '):
    start(config, tmp_path / 'run')


def test_a_run_keeps_its_limits_unless_texts_outgrow_them(captions, tmp_path):
  config, workdir = auto(own_config(captions)), tmp_path / 'run'
  first = start(config, workdir).experiment
  write_config(first, workdir)
  make_tokenizer(first, workdir)
  (workdir / 'checkpoints').mkdir()
  assert json.loads((workdir / 'config.json').read_text()) == to_dict(first)
  write_lines(tmp_path, ['1', '2'])
  assert start(config, workdir).experiment == first
  write_lines(tmp_path, ['1' * 200])
  longer = limits_of(start(config, workdir).experiment)
  assert longer.max_text == 200
  assert longer.text_targets == 201
  recorded = with_recorded_limits(build(Experiment, config), workdir)
  assert recorded == first == read_experiment(workdir)


def test_limits_of_a_run_that_never_trained_are_set_anew(captions, tmp_path):
  config, workdir = auto(own_config(captions)), tmp_path / 'run'
  write_config(start(config, workdir).experiment, workdir)
  write_lines(tmp_path, ['1', '2'])
  assert start(config, workdir).experiment.data.max_text == 32


def test_texts_that_are_not_known_at_the_start_need_numbers(tmp_path):
  config = tiny.get_config()
  config.data.row_capacity.length = 'auto'
  told = r"^data\.row_capacity\.length: 'auto' counts .* captioning \(emoji\)"
  with pytest.raises(UserError, match=told):
    start(config, tmp_path / 'run')


def test_what_needs_numbers_says_so(captions):
  experiment = build(Experiment, auto(own_config(captions)))
  assert make_tasks(experiment, experiment.data.sources)  # As `show` does.
  for use in (experiment.layout, experiment.pipeline):
    with pytest.raises(UserError, match=r"^data\..* is 'auto', which a train"):
      use()
  config = own_config(captions)
  config.data.max_text = 'all'
  with pytest.raises(UserError, match="must be of type int or 'auto'"):
    build(Experiment, config)
