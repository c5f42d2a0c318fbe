"""A run that is killed or stopped at any moment repeats the same losses."""

import pathlib
import random
import shutil
import signal
import time

import pytest

from tests import process

pytestmark = pytest.mark.slow

_STEPS = 60
_CODES = {
  signal.SIGKILL: -signal.SIGKILL,
  signal.SIGINT: 130,
  signal.SIGTERM: 0,
}
_SIGNALS = {
  'train_vae': (signal.SIGKILL, signal.SIGINT),
  'train': (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM),
}


def _flags(module: str, workdir: pathlib.Path) -> list[str]:
  section = {'train_vae': 'vae_training', 'train': 'training'}[module]
  return [
    *process.flags(workdir),
    f'--config.{section}.steps={_STEPS}',
    f'--config.{section}.checkpoint.every=4',
  ]


def _interrupt(
  module: str, workdir: pathlib.Path, log: pathlib.Path, step: int, number: int
) -> tuple[int, str]:
  """Trains on and sends a signal soon after a step is logged."""
  before = log.stat().st_ino if log.exists() else None
  training = process.start(module, *_flags(module, workdir))
  while training.poll() is None:
    # A run that resumes puts a new log into the place of the old one.
    resumed = log.exists() and log.stat().st_ino != before
    if resumed and log.read_bytes().count(b'\n') >= step:
      training.send_signal(number)
      break
    time.sleep(0.005)
  output, _ = training.communicate()
  return training.returncode, output


@pytest.mark.parametrize('module', _SIGNALS)
def test_a_run_goes_on_as_if_never_stopped(module, started, tmp_path):
  if module == 'train_vae':
    shutil.rmtree(started / 'vae')
  other = shutil.copytree(started, tmp_path / 'other')
  process.succeed(module, *_flags(module, other))
  folder = 'vae' if module == 'train_vae' else '.'
  log = started / folder / 'metrics.jsonl'
  numbers = _SIGNALS[module]
  steps = sorted(random.Random().sample(range(1, 30), len(numbers)))
  for step, number in zip(steps, numbers, strict=True):
    found, output = _interrupt(module, started, log, step, number)
    assert found == _CODES[number], (steps, output)
    assert 'Traceback' not in output
    if number != signal.SIGKILL:
      logged = process.read_losses(started / folder)[-1]['step']
      assert process.newest_checkpoint(started / folder) == logged
  process.succeed(module, *_flags(module, started))
  losses = process.read_losses(started / folder)
  assert [line['step'] for line in losses] == list(range(1, _STEPS + 1))
  assert losses == process.read_losses(other / folder), steps
