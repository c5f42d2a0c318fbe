"""Trains the VAE and UniFluid of a config and evaluates them.

  python -m unifluid_jax.quickstart --config=experiments/quickstart.py \
      --workdir=runs/quickstart

A restarted run resumes, and skips finished parts.
`timing.json` in the folder adds up the time of all attempts.
"""

import contextlib
import json
import pathlib
import resource
import sys
import threading
import time
from collections.abc import Iterator

from absl import logging

from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.evaluation.metrics_file import TIMING_FILE, read_timing
from unifluid_jax.evaluation.runner import (
  METRICS_FILE,
  REPORT_FILE,
  check_evaluation,
  evaluate_run,
)
from unifluid_jax.training.memory_needs import unifluid_needs, vae_needs
from unifluid_jax.training.preflight import PreparedRun, check_start
from unifluid_jax.training.text_limits import with_recorded_limits
from unifluid_jax.training.unifluid_run import train_unifluid
from unifluid_jax.training.vae_run import train_vae
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.host_memory import check_memory
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.paths import write_whole
from unifluid_jax.workdir.run_config import CONFIG_FILE
from unifluid_jax.workdir.workdir_lock import workdir_lock

_CONFIG, _WORKDIR = entry_point.define_config_flags()

_TIMING_INTERVAL_SECONDS = 2.0
"""Seconds between two writings of the time: what a kill may lose."""


def main() -> None:
  """Trains and evaluates, as far as that is not done."""
  account = Goodput.of_process()
  experiment = build(Experiment, entry_point.require(_CONFIG))
  check_memory(vae_needs(experiment), 'a step of the VAE')
  check_memory(unifluid_needs(experiment), 'a step of the training')
  workdir = entry_point.workdir_path(_WORKDIR)
  if not isinstance(workdir, pathlib.Path):
    raise UserError(f'--workdir: {workdir} must be a folder of this machine')
  if not _is_done(with_recorded_limits(experiment, workdir), workdir):
    watch = _Stopwatch(workdir)
    with workdir_lock(workdir):
      start = check_start(
        experiment,
        workdir,
        trains_vae=True,
        also=[lambda: check_evaluation(experiment)],
      )
      with _writing_timing(watch):
        _train(start, workdir, account)
        watch.end_training()
        with account.spend('evaluation'):
          evaluate_run(workdir)
        logging.info('quickstart: %s', account)
  logging.info('the report is %s', (workdir / REPORT_FILE).absolute())


def _train(start: PreparedRun, workdir: pathlib.Path, account: Goodput) -> None:
  """Trains the VAE, and UniFluid on it."""
  train_vae(start.experiment, workdir / 'vae', start.vae_tasks, account)
  train_unifluid(start.experiment, workdir, start, account)


def _is_done(experiment: Experiment, workdir: pathlib.Path) -> bool:
  """Whether the report is of this very config, trained to its end."""
  report, config = workdir / REPORT_FILE, workdir / CONFIG_FILE
  last = workdir / 'checkpoints' / str(experiment.training.steps)
  inputs = (config, last, workdir / METRICS_FILE)
  if not all(path.exists() for path in (report, *inputs)):
    return False
  try:
    same = parse_json(config.read_text('utf-8')) == to_dict(experiment)
  except ValueError:  # It is damaged, and will be replaced.
    return False
  written = report.stat().st_mtime_ns
  return same and all(path.stat().st_mtime_ns <= written for path in inputs)


class _Stopwatch:
  """The time and the memory of a run: this attempt on top of those before."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / TIMING_FILE
    self._before = {k: v or 0.0 for k, v in read_timing(workdir).items()}
    self._start = time.monotonic()
    self._training: float | None = None

  def end_training(self) -> None:
    """What follows is no longer training."""
    self._training = time.monotonic() - self._start

  def write(self) -> None:
    """Brings the file up to date."""
    seconds = time.monotonic() - self._start
    training = seconds if self._training is None else self._training
    before = self._before
    timing = {
      'seconds_train': before['seconds_train'] + training,
      'seconds_total': before['seconds_total'] + seconds,
      'peak_rss_gib': max(before['peak_rss_gib'], _peak_rss_gib()),
    }
    write_whole(self._path, f'{json.dumps(timing, indent=2)}\n'.encode())


@contextlib.contextmanager
def _writing_timing(watch: _Stopwatch) -> Iterator[None]:
  """Saves the elapsed time every few seconds, in case of a kill."""
  stopped = threading.Event()

  def beat():
    while not stopped.wait(_TIMING_INTERVAL_SECONDS):
      # Checkpoints report a full disk.
      with contextlib.suppress(OSError):
        watch.write()

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    yield
  finally:
    stopped.set()
    thread.join()
    with contextlib.suppress(OSError):
      watch.write()


def _peak_rss_gib() -> float:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**30 if sys.platform == 'darwin' else 2**20)


if __name__ == '__main__':
  entry_point.run(main, resumes=True)
