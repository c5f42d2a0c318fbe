"""A run that is killed or stopped at any moment repeats the same losses."""

import contextlib
import json
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests import process

pytestmark = pytest.mark.slow

_EVERY, _VAE_STEPS, _STEPS = 4, 30, 70
_SHORTER = 40
"""Steps of several processes, which take longer for each."""
_SEED = 3
"""Of the moments."""


def _flags(
  workdir: pathlib.Path, record: pathlib.Path, steps: int = _STEPS
) -> list[str]:
  return [
    *process.flags(workdir, f'tests/configs/recorded.py:{record}'),
    f'--config.vae_training.steps={_VAE_STEPS}',
    f'--config.vae_training.checkpoint.every={_EVERY}',
    f'--config.training.steps={steps}',
    f'--config.training.checkpoint.every={_EVERY}',
  ]


def _steps_told(child: process.Child, stage: str) -> list[int]:
  """The steps that a process has logged."""
  found = re.findall(rf'^{stage} (\d+)/', child.output, re.MULTILINE)
  return [int(step) for step in found]


def _logged(child: process.Child, stage: str, step: int) -> Callable[[], bool]:
  """Whether a process has logged a step or a later one."""
  return lambda: max(_steps_told(child, stage), default=0) >= step


def _rows(record: pathlib.Path) -> list[list[str]]:
  """The rows of each batch that the processes of an attempt trained on."""
  files = sorted(record.parent.glob(f'{record.name}.*'))
  shares = [file.read_text().splitlines() for file in files]
  # One of several that are killed may have come further than the others.
  return [sum((x.split() for x in s), []) for s in zip(*shares, strict=False)]


class _Killed:
  """A run that is interrupted again and again, and what it must keep."""

  def __init__(
    self,
    workdir: pathlib.Path,
    records: pathlib.Path,
    steps: int = _STEPS,
  ):
    self.workdir = workdir
    self._records = records
    self._steps = steps
    self._attempts = 0
    self._rng = random.Random(_SEED)
    self.rows: list[tuple[int, list[list[str]]]] = []

  def draw_steps(self, count: int, below: int) -> list[int]:
    """Random steps in rising order."""
    return sorted(self._rng.sample(range(1, below), count))

  def pause(self, most: float) -> None:
    """A moment that no log tells of."""
    time.sleep(self._rng.uniform(0, most))

  @contextlib.contextmanager
  def attempt(self, module, count=1, folder='.', last_save=True):
    """Starts the run; checks where it goes on, and afterwards what it keeps.

    Args:
      module: The entry point.
      count: Number of processes that train together.
      folder: Where in the run's folder the stage is that is interrupted.
      last_save: Whether it is not killed, but ends by itself after saving.

    Yields:
      The processes.
    """
    stage = self.workdir / folder
    start = process.newest_checkpoint(stage)
    self._attempts += 1
    record = self._records / str(self._attempts)
    with contextlib.ExitStack() as stack:
      flags = _flags(self.workdir, record, self._steps)
      if count == 1:
        children = [process.start(module, *flags)]
      else:
        children = process.start_together(module, count, *flags)
      for child in children:
        stack.enter_context(child)
      yield children
      output = children[0].output
    assert 'Traceback' not in output, output
    if start:
      assert f'resumes from step {start}\n' in output, output
    if folder == '.':
      self.rows.append((start, _rows(record)))
    log = (
      process.read_losses(stage) if (stage / 'metrics.jsonl').exists() else ()
    )
    logged = int(log[-1]['step']) if log else 0
    kept = process.newest_checkpoint(stage)
    if last_save:
      assert kept == logged, output
    else:
      # Each save waits for the one before: but for the last, none is lost.
      assert kept >= (logged - 1) // _EVERY * _EVERY - _EVERY, output


@pytest.mark.long
def test_ten_kills(tmp_path):
  """Of the quickstart: while it starts, trains, saves, samples."""
  whole = tmp_path / 'whole'
  process.succeed('quickstart', *_flags(whole, tmp_path / 'whole_rows'))
  records = tmp_path / 'rows'
  records.mkdir()
  run = _Killed(tmp_path / 'run', records)

  for step in run.draw_steps(2, 20):
    with run.attempt('quickstart', folder='vae', last_save=False) as (child,):
      child.watch(_logged(child, 'vae', step))
      run.pause(0.02)
      child.kill()
  with run.attempt('quickstart', folder='vae') as (child,):
    child.watch(_logged(child, 'vae', 1))
    child.send(signal.SIGINT)
    assert child.wait() == 130

  steps = run.draw_steps(6, 50)
  for step in steps[:5]:
    with run.attempt('quickstart', last_save=False) as (child,):
      child.watch(_logged(child, 'unifluid', step))
      run.pause(0.02)
      child.kill()
  with run.attempt('quickstart', last_save=False) as (child,):
    child.watch(lambda: 'unifluid resumes' in child.output)
    run.pause(1.0)
    child.kill()
  with run.attempt('quickstart') as (child,):
    child.watch(_logged(child, 'unifluid', steps[5]))
    child.send(signal.SIGTERM)
    assert child.wait() == 0
    assert child.output.endswith(
      'stopped by SIGTERM; start the same command again to go on\n'
    )

  def saving():
    """Holds the process while it saves."""
    pattern = '*.orbax-checkpoint-tmp*'
    if not list((run.workdir / 'checkpoints').glob(pattern)):
      return False
    child.send(signal.SIGSTOP)
    if list((run.workdir / 'checkpoints').glob(pattern)):
      return True
    child.send(signal.SIGCONT)
    return False

  with run.attempt('quickstart', last_save=False) as (child,):
    child.watch(saving)
    child.kill()
  with run.attempt('quickstart') as (child,):
    child.watch(lambda: '\nunifluid: ' in child.output)
    run.pause(2.0)
    child.kill()
  assert 'was interrupted and is not used' in child.output
  assert len(list(run.workdir.glob('checkpoints.partial.*'))) == 1
  assert not (run.workdir / 'report.html').exists()

  process.succeed('quickstart', *_flags(run.workdir, records / 'last'))
  for folder, count in (('vae', _VAE_STEPS), ('.', _STEPS)):
    losses = process.read_losses(run.workdir / folder)
    assert [line['step'] for line in losses] == list(range(1, count + 1))
    assert losses == process.read_losses(whole / folder)
  assert _measures(run.workdir) == _measures(whole)
  rows = _rows(tmp_path / 'whole_rows')
  assert len(rows) == _STEPS
  _check_rows(run.rows, rows)
  _check_goodput(whole)


def _measures(workdir: pathlib.Path) -> dict:
  """What was measured, without when, and how long it took."""
  metrics = json.loads((workdir / 'metrics.json').read_text())
  ours = ('manifest', 'peak_rss_gib', 'seconds_train', 'seconds_total')
  return {k: v for k, v in metrics.items() if k not in ours}


def _check_rows(attempts, whole) -> None:
  """Each attempt trained on the very rows of its steps."""
  assert len({row for rows in whole for row in rows}) > len(whole)
  for start, rows in attempts:
    assert rows == whole[start : start + len(rows)], start
  assert sum(len(rows) for _, rows in attempts) > len(whole) / 2


def _check_goodput(workdir: pathlib.Path) -> None:
  """The account in the log of a run that was not interrupted."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(lines[-1])
  spent = {k[8:]: v for k, v in last.items() if k.startswith('seconds_')}
  del spent['per_step']
  assert all(spent[x] > 0 for x in ('train', 'compile', 'data_wait', 'save'))
  assert spent['restore'] > 0  # of the VAE
  assert spent['start'] > 1  # Python's imports alone
  assert spent['evaluation'] == 0
  assert np.isclose(last['goodput'], spent['train'] / sum(spent.values()))


@pytest.mark.long
def test_processes_are_stopped_and_others_go_on(started, tmp_path):
  whole = shutil.copytree(started, tmp_path / 'whole')
  records = tmp_path / 'rows'
  records.mkdir()
  uninterrupted = _Killed(whole, tmp_path, _SHORTER)
  with uninterrupted.attempt('train', 2) as children:
    assert [child.wait() for child in children] == [0, 0], children[0].output

  run = _Killed(started, records, _SHORTER)
  with run.attempt('train', 2, last_save=False) as children:
    children[0].watch(_logged(children[0], 'unifluid', 10))
    run.pause(0.02)
    for child in children:
      child.kill()
  with run.attempt('train', 2) as children:
    children[0].watch(_logged(children[0], 'unifluid', 1))
    children[1].send(signal.SIGTERM)
    codes = [child.wait() for child in children]
    assert codes == [0, 0], [child.output for child in children]
    assert 'stopped by SIGTERM' in children[0].output
  stopped = process.newest_checkpoint(started)
  assert run.rows[-1][0] < stopped < _SHORTER
  with run.attempt('train') as (child,):
    assert child.wait() == 0, child.output

  losses = process.read_losses(started)
  expected = process.read_losses(whole)
  assert [line['step'] for line in losses] == list(range(1, _SHORTER + 1))
  assert losses[:stopped] == expected[:stopped]
  for line, other in zip(losses[stopped:], expected[stopped:], strict=True):
    assert line == pytest.approx(other, rel=1e-5)
  ((_, rows),) = uninterrupted.rows
  assert len(rows) == _SHORTER
  _check_rows(run.rows, rows)
