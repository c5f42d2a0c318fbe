"""Evaluates a run and writes what comes out into the run's folder."""

import json

from absl import logging

from unifluid_jax import inference
from unifluid_jax.data.emoji.concepts import concepts_of
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
    UserError: A target is of no known measure, or the training mixture has
      none of the embedded data's tasks.
  """
  check_targets(experiment.evaluation)
  tasks_of(experiment)


def evaluate_run(workdir: AnyPath, tensor: int = 1) -> None:
  """Writes `<workdir>/metrics.json` and `<workdir>/report.html`.

  Args:
    workdir: Folder of a trained model, see `inference.load`.
    tensor: Devices that each layer is split over, likewise.

  Raises:
    UserError: If it is no such folder, or cannot be evaluated.
  """
  model = inference.load(workdir, tensor)
  config = model.experiment.evaluation
  check_evaluation(model.experiment)
  vae_log, log = read_log(workdir / 'vae'), read_log(workdir)
  read_timing(workdir)  # a broken file is told before the work
  manifest = make_manifest(model, config)
  results = evaluate(model, config)
  concepts = len(concepts_of(model.experiment.data.concepts))
  timing = read_timing(workdir)
  metrics = to_metrics(results.measures, concepts, timing, manifest)
  title = workdir.absolute().name  # '.' has none.
  report = render(Report(title, model, config, results, metrics, vae_log, log))
  for name, text in (
    (METRICS_FILE, json.dumps(metrics, indent=2) + '\n'),
    (REPORT_FILE, report),
  ):
    write_whole(workdir / name, text.encode())
    logging.info('wrote %s', workdir / name)
