"""Evaluates a run and writes what comes out into the run's folder."""

import json
import os
import pathlib

from absl import logging

from unifluid_jax import inference
from unifluid_jax.data.emoji.splits import cells_of
from unifluid_jax.errors import Collector, UserError
from unifluid_jax.evaluation.manifest import make_manifest
from unifluid_jax.evaluation.metrics import read_timing, to_metrics
from unifluid_jax.evaluation.report.measures import check_targets
from unifluid_jax.evaluation.report.page import Report, render
from unifluid_jax.evaluation.results import evaluate, tasks_of
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath, write_whole
from unifluid_jax.training.metrics import read_log

METRICS_FILE = 'metrics.json'
REPORT_FILE = 'report.html'


def check_evaluation(experiment: Experiment) -> None:
  """Refuses what could not be evaluated, before hours of work.

  Raises:
    UserError: A target is of no known measure, the training mixture has none
      of the embedded data's tasks, or no drawings are held out.
  """
  problems = Collector()
  with problems.catch():
    check_targets(experiment.evaluation)
  with problems.catch():
    tasks_of(experiment)
    for split in ('train', 'cell'):
      cells_of(experiment.emoji(), split)
  problems.check()


def evaluate_run(workdir: AnyPath, tensor: int = 1) -> None:
  """Writes `<workdir>/metrics.json` and `<workdir>/report.html`.

  Args:
    workdir: Folder of a trained model, see `inference.load`.
    tensor: Devices that each layer is split over, likewise.

  Raises:
    UserError: If it is no such folder, or cannot be evaluated.
  """
  model = inference.load(workdir, tensor)
  if isinstance(workdir, pathlib.Path) and not os.access(workdir, os.W_OK):
    raise UserError(
      f'{workdir} cannot be written to; make it writable, for {METRICS_FILE} '
      f'and {REPORT_FILE}'
    )
  config = model.experiment.evaluation
  check_evaluation(model.experiment)
  vae_log, log = read_log(workdir / 'vae'), read_log(workdir)
  read_timing(workdir)  # a broken file is told before the work
  manifest = make_manifest(model, config)
  results = evaluate(model, config)
  # Without those that are held out whole.
  trained = cells_of(model.experiment.emoji(), 'train')
  concepts = len({cell.base for cell in trained})
  timing = read_timing(workdir)
  metrics = to_metrics(results.measures, concepts, timing, manifest)
  # First, lest they be lost if there is no room for the report.
  _write(workdir / METRICS_FILE, json.dumps(metrics, indent=2) + '\n')
  title = workdir.absolute().name  # '.' has none.
  report = render(Report(title, model, config, results, metrics, vae_log, log))
  _write(workdir / REPORT_FILE, report)


def _write(file: AnyPath, text: str) -> None:
  write_whole(file, text.encode())
  logging.info('wrote %s', file)
