"""What importing the library loads, and how long it takes."""

import subprocess
import sys

import pytest

from tests.process import ROOT

_FRAMEWORKS = ('tensorflow', 'torch', 'transformers', 'diffusers')


def _loaded(module: str) -> set[str]:
  """Top-level modules that are loaded once a module is imported."""
  program = f'import sys, {module}; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert not done.stderr
  return {name.partition('.')[0] for name in done.stdout.split()}


def test_the_package_loads_nothing():
  loaded = _loaded('unifluid_jax')
  assert not loaded & {'jax', 'numpy', *_FRAMEWORKS}


def test_the_package_loads_at_once():
  program = (
    'import time; start = time.perf_counter(); import unifluid_jax; '
    'print(time.perf_counter() - start)'
  )
  seconds = subprocess.check_output([sys.executable, '-c', program], cwd=ROOT)
  assert float(seconds) < 2


# Between them, these two import all that trains, samples and evaluates.
@pytest.mark.parametrize('module', ['quickstart', 'sample'])
def test_no_entry_point_loads_another_framework(module):
  loaded = _loaded(f'unifluid_jax.{module}')
  assert 'jax' in loaded
  assert not loaded & set(_FRAMEWORKS)
