"""A run that is killed or stopped at any moment repeats the same losses."""

import pathlib
import random
import signal
import subprocess
import time

import pytest

from tests import process

pytestmark = pytest.mark.slow

_STEPS = 60


def _interrupt(
  module: str, arguments: list[str], log: pathlib.Path, step: int, number: int
) -> tuple[int, str]:
  """Starts a training and sends it a signal soon after it logs a step."""
  training = process.start(module, *arguments)
  while training.poll() is None:
    if log.exists() and log.read_bytes().count(b'\n') >= step:
      training.send_signal(number)
      break
    time.sleep(0.01)
  try:
    output, _ = training.communicate(timeout=300)
  except subprocess.TimeoutExpired:
    training.kill()
    raise
  return training.returncode, output


def _flags(module: str, workdir: pathlib.Path) -> list[str]:
  section = {'train_vae': 'vae_training', 'train': 'training'}[module]
  return [
    *process.flags(workdir),
    f'--config.{section}.steps={_STEPS}',
    f'--config.{section}.checkpoint.every=4',
  ]


@pytest.mark.parametrize('module', ['train_vae', 'train'])
def test_a_run_goes_on_as_if_never_stopped(module, started, tmp_path):
  other = tmp_path / 'uninterrupted'
  if module == 'train_vae':
    other.mkdir()
    started = tmp_path / 'stopped'
  else:
    other.symlink_to(tmp_path / 'copy')
    _copy(started, tmp_path / 'copy')
  arguments = _flags(module, started)
  run = started / 'vae' if module == 'train_vae' else started
  uninterrupted = other / 'vae' if module == 'train_vae' else other
  process.succeed(module, *_flags(module, other))
  rng = random.Random()
  steps = sorted(rng.sample(range(1, 30), 4))
  numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
  codes = [-signal.SIGKILL, -signal.SIGKILL, 130, 0]
  for step, number, code in zip(steps, numbers, codes, strict=True):
    found, output = _interrupt(
      module, arguments, run / 'metrics.jsonl', step, number
    )
    assert found == code, (steps, output)
    assert 'Traceback' not in output
    if number != signal.SIGKILL:
      saved = process.newest_checkpoint(run)
      assert saved == len(process.read_losses(run)) >= step
  process.succeed(module, *arguments)
  losses = process.read_losses(run)
  assert [line['step'] for line in losses] == list(range(1, _STEPS + 1))
  assert losses == process.read_losses(uninterrupted), steps
