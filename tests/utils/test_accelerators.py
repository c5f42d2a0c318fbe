"""Libtpu is left alone where there is no TPU, and nowhere else."""

import os
import types

import pytest

from unifluid_jax.utils import accelerators


class Config(types.SimpleNamespace):
  """JAX's settings, which a process can set but once."""

  def update(self, name, value):
    setattr(self, name, value)


@pytest.fixture
def config(monkeypatch):
  config = Config(jax_platforms=None)
  fake = types.SimpleNamespace(config=config)
  monkeypatch.setattr(accelerators, 'jax', fake)
  monkeypatch.setattr(accelerators, 'has_tpu', lambda: False)
  monkeypatch.setattr(accelerators, '_has_plugins', lambda: False)
  for name in accelerators._QUIET:
    monkeypatch.setenv(name, '')  # Restores it, whatever is set meanwhile.
    monkeypatch.delenv(name)
  return config


def test_nothing_but_the_processor(config):
  accelerators.ignore_absent_tpu()
  assert config.jax_platforms == 'cpu'


def test_a_tpu(config, monkeypatch):
  monkeypatch.setattr(accelerators, 'has_tpu', lambda: True)
  accelerators.ignore_absent_tpu()
  assert config.jax_platforms is None
  assert 'TPU_WORKER_HOSTNAMES' not in os.environ


@pytest.mark.parametrize('platforms', ['tpu', 'cuda,cpu', ''])
def test_what_the_user_has_chosen(config, platforms):
  config.jax_platforms = platforms
  accelerators.ignore_absent_tpu()
  assert config.jax_platforms == platforms


def test_a_tpu_that_the_user_insists_on(config, monkeypatch):
  monkeypatch.setenv('JAX_FORCE_TPU_INIT', '1')
  accelerators.ignore_absent_tpu()
  assert config.jax_platforms is None


def test_another_accelerator_is_found_by_jax(config, monkeypatch):
  monkeypatch.setattr(accelerators, '_has_plugins', lambda: True)
  accelerators.ignore_absent_tpu()
  assert config.jax_platforms is None
  assert os.environ['TPU_WORKER_HOSTNAMES'] == 'localhost'
