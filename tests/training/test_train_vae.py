"""The VAE's run, as a whole."""

import dataclasses
import multiprocessing

import numpy as np
import pytest

from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.vae_run import train_vae
from unifluid_jax.training.vae_state import FINAL, load_vae
from unifluid_jax.utils.errors import UserError


def test_a_vae_that_has_been_trained_for_longer_is_kept(tmp_path):
  experiment = build(Experiment, tiny.get_config())
  train_vae(experiment, tmp_path)
  files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  shorter = dataclasses.replace(experiment.vae_training, steps=2)
  train_vae(dataclasses.replace(experiment, vae_training=shorter), tmp_path)
  assert Checkpoints(tmp_path / FINAL).steps == [4]
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == files


def test_a_vae_that_unifluid_was_trained_on_is_not_trained_for_longer(tmp_path):
  experiment = build(Experiment, tiny.get_config())
  train_vae(experiment, tmp_path / 'vae')
  with Checkpoints(tmp_path / 'checkpoints') as unifluid:
    unifluid.save(3, {'x': np.zeros(2)}, {}, 0.0)
  longer = dataclasses.replace(experiment.vae_training, steps=6)
  longer = dataclasses.replace(experiment, vae_training=longer)
  with pytest.raises(UserError, match='trained on the VAE of 4 steps'):
    train_vae(longer, tmp_path / 'vae')
  assert Checkpoints(tmp_path / 'vae' / FINAL).steps == [4]
  train_vae(experiment, tmp_path / 'vae')
  (tmp_path / 'checkpoints').rename(tmp_path / 'away')
  train_vae(longer, tmp_path / 'vae')
  assert Checkpoints(tmp_path / 'vae' / FINAL).latest_step == 6


def test_a_finished_vae_that_is_damaged_is_made_anew(tmp_path, caplog):
  """From the last checkpoint of its run, to the same bits."""
  experiment = build(Experiment, tiny.get_config())
  train_vae(experiment, tmp_path / 'vae')
  before = load_vae(experiment, tmp_path / 'vae')
  final = tmp_path / 'vae' / FINAL
  largest = max(final.rglob('d/*'), key=lambda file: file.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[1000] ^= 8
  largest.write_bytes(content)
  with pytest.raises(UserError, match='holds no checkpoint that can be used'):
    load_vae(experiment, tmp_path / 'vae')
  train_vae(experiment, tmp_path / 'vae')
  assert sum(f'{final / "4"} is damaged' in m for m in caplog.messages) == 1
  after = load_vae(experiment, tmp_path / 'vae')
  assert before.keys() == after.keys()
  assert all((before[name] == after[name]).all() for name in before)
  for file in tmp_path.rglob('_METADATA'):
    file.unlink()
  with pytest.raises(UserError, match='holds no checkpoint that can be used'):
    train_vae(experiment, tmp_path / 'vae')


def test_no_worker_outlives_the_training(tmp_path):
  config = tiny.get_config()
  config.data.num_workers = 1
  train_vae(build(Experiment, config), tmp_path)
  assert not multiprocessing.active_children()


def test_a_vae_is_told_as_that_of_its_config_alone(tmp_path, caplog):
  config = tiny.get_config()
  train_vae(build(Experiment, config), tmp_path)
  config.vae_training.loss.kl_weight = 0.5
  with pytest.raises(
    UserError, match=r'vae_training\.loss\.kl_weight is .* 0\.5'
  ):
    train_vae(build(Experiment, config), tmp_path)
  config.vae_training.steps = 5
  with caplog.at_level('INFO', 'absl'):
    train_vae(build(Experiment, config), tmp_path)
  told = 'continues with another config: vae_training.loss.kl_weight'
  assert told in caplog.text
  assert Checkpoints(tmp_path / FINAL).latest_step == 5
