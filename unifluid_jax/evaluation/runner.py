"""Evaluates a run and writes the results into its workdir."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from unifluid_jax import inference
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.emoji.splits import cells_of
from unifluid_jax.evaluation.manifest import (
  make_manifest,
  make_own_manifest,
)
from unifluid_jax.evaluation.metrics_file import read_timing, to_metrics
from unifluid_jax.evaluation.own_images import (
  IMAGE_TASKS,
  TEXT_TASKS,
  OwnResults,
  evaluate_own,
  open_lines,
  own_tasks_of,
)
from unifluid_jax.evaluation.report.measures import check_targets
from unifluid_jax.evaluation.report.own_images_page import OwnReport, render_own
from unifluid_jax.evaluation.report.page import Report, render
from unifluid_jax.evaluation.results import evaluate, tasks_of
from unifluid_jax.training.metrics import read_log
from unifluid_jax.utils.errors import Collector, UserError
from unifluid_jax.utils.paths import AnyPath, write_whole

METRICS_FILE = 'metrics.json'
REPORT_FILE = 'report.html'


def check_evaluation(experiment: Experiment) -> None:
  """Rejects what could not be evaluated, before hours of work.

  Raises:
    UserError: A target is of no known measure, no source has a task that is
      measured, or no drawings are held out.
  """
  problems = Collector()
  with problems.catch():
    check_targets(experiment.evaluation)
  is_emoji = bool(tasks_of(experiment))
  if is_emoji:
    with problems.catch():
      for split in ('train', 'cell'):
        cells_of(experiment.emoji(), split)
  elif not own_tasks_of(experiment):
    problems.add(
      UserError(
        'no source of data.sources has a task that can be evaluated; add one '
        f'of {", ".join((*IMAGE_TASKS, *TEXT_TASKS))}'
      )
    )
  problems.check()


def evaluate_run(workdir: AnyPath, tensor: int = 1) -> None:
  """Writes `<workdir>/metrics.json` and `<workdir>/report.html`.

  Args:
    workdir: Folder of a trained model, see `inference.load`.
    tensor: Devices that each layer is split over, see `inference.load`.

  Raises:
    UserError: The folder holds no run, or the run cannot be evaluated.
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
  read_timing(workdir)  # Reports a broken file before the work.
  title = workdir.absolute().name  # '.' has none.
  if not tasks_of(model.experiment):
    own = _evaluate_own(model, workdir)
    experiment = model.experiment
    page = render_own(OwnReport(title, experiment, *own, vae_log, log))
    _write(workdir / REPORT_FILE, page)
    return
  manifest = make_manifest(model, config)
  results = evaluate(model, config)
  # Without those that are held out whole.
  trained = cells_of(model.experiment.emoji(), 'train')
  sizes = {'concepts': len({cell.base for cell in trained})}
  metrics = to_metrics(results.measures, sizes, read_timing(workdir), manifest)
  _write_metrics(workdir, metrics)
  report = render(Report(title, model, config, results, metrics, vae_log, log))
  _write(workdir / REPORT_FILE, report)


def _evaluate_own(
  model: inference.Model, workdir: AnyPath
) -> tuple[OwnResults, dict[str, Any]]:
  """Evaluates a run on a user's own data, and writes its metrics."""
  config = model.experiment.evaluation
  lines = open_lines(model.experiment)
  manifest = make_own_manifest(model, config)
  results = evaluate_own(model, config, lines)
  counts: dict[str, dict[str, int]] = {}
  for (task, split), count in results.counts.items():
    counts.setdefault(task, {})[split] = count
  sizes = {'lines': counts}
  metrics = to_metrics(results.measures, sizes, read_timing(workdir), manifest)
  _write_metrics(workdir, metrics)
  return results, metrics


def _write_metrics(workdir: AnyPath, metrics: Mapping[str, Any]) -> None:
  """Writes the metrics, before the report may fill the disk."""
  _write(workdir / METRICS_FILE, json.dumps(metrics, indent=2) + '\n')


def _write(file: AnyPath, text: str) -> None:
  write_whole(file, text.encode())
  logging.info('wrote %s', file)
