"""A finished run to start from."""

import pathlib
import shutil

import pytest

pytest.register_assert_rewrite('tests.process')

from tests import process  # noqa: E402


@pytest.fixture(scope='session')
def _finished(tmp_path_factory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('finished')
  process.succeed('train_vae', *process.flags(workdir))
  process.succeed('train', *process.flags(workdir))
  return workdir


@pytest.fixture
def finished(_finished, tmp_path) -> pathlib.Path:
  """A copy of a run of the tiny config: VAE and UniFluid."""
  workdir = tmp_path / 'run'
  shutil.copytree(_finished, workdir)
  return workdir


@pytest.fixture
def started(finished) -> pathlib.Path:
  """A run of the tiny config whose VAE is trained, and nothing else."""
  shutil.rmtree(finished / 'checkpoints')
  (finished / 'metrics.jsonl').unlink()
  return finished
