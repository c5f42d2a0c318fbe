"""A whole evaluation with a model whose answers are known."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest

from tests.evaluation import fakes
from unifluid_jax import inference
from unifluid_jax.config.sections.data import SourceConfig
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.evaluation.results import evaluate
from unifluid_jax.evaluation.runner import check_evaluation, evaluate_run
from unifluid_jax.utils.errors import UserError

HEADLINES = {
  *('vae_psnr_heldout_db', 'edit_exact_nn', 'edit_exact', 'vqa_heldout'),
  *('t2i_train_nn_concept', 't2i_heldout_nn_concept'),
  *('t2i_train_nn_concept_parallel', 't2i_heldout_nn_concept_parallel'),
  *('t2i_train_nn_concept_own_bank', 't2i_heldout_nn_concept_own_bank'),
  *('t2i_train_psnr_db', 't2i_heldout_psnr_db'),
  *('caption_train_exact', 'caption_heldout_exact'),
  *('caption_heldout_exact_untoned', 'caption_heldout_nn_baseline'),
  *('vqa_category_heldout', 'vqa_category_nn_baseline'),
  *('vqa_category_majority', 'concepts', 'counts', 'chance', 'manifest'),
  *('seconds_train', 'seconds_total', 'peak_rss_gib'),
}
SMALL = EvaluationConfig(samples=1, prompts=2, captions=2, questions=1, edits=4)


@pytest.fixture
def small(experiment):
  """The experiment, looked at a little."""
  return dataclasses.replace(experiment, evaluation=SMALL)


@pytest.fixture
def workdir(tmp_path, letters: Tokenizer, small, monkeypatch):
  """The folder of a run whose model is the oracle."""
  line = {'step': 2, 'seconds_per_step': 0.5, 'loss_image': 1.0}
  (tmp_path / 'vae').mkdir()
  for folder in (tmp_path, tmp_path / 'vae'):
    (folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
  (tmp_path / 'timing.json').write_text('{"seconds_total": 61}')
  model = fakes.Oracle(small, letters)
  monkeypatch.setattr(inference, 'load', lambda workdir, tensor: model)
  return tmp_path


def test_a_run_gets_its_metrics_and_its_report(workdir: pathlib.Path):
  evaluate_run(workdir)
  metrics = json.loads((workdir / 'metrics.json').read_text())
  assert set(metrics) >= HEADLINES
  assert metrics['t2i_heldout_nn_concept'] == 1
  assert metrics['counts']['caption_train_exact'] == 2
  assert (metrics['concepts'], metrics['seconds_total']) == (40, 61)
  assert metrics['manifest']['seed'] == 0
  assert metrics['manifest']['decoding']['text']['temperature'] == 0
  assert metrics['manifest']['evaluation']['edits'] == 4
  report = (workdir / 'report.html').read_text()
  assert report.endswith('</html>\n')
  assert re.search('Its VAE has .* parameters and was trained for 2 st', report)


def test_a_vae_that_was_trained_elsewhere_has_no_curve(workdir: pathlib.Path):
  """As one that `init.vae` names: its log is not in the folder."""
  shutil.rmtree(workdir / 'vae')
  evaluate_run(workdir)
  report = (workdir / 'report.html').read_text()
  assert re.search(r'Its VAE has \S+ million parameters\. ', report)
  assert 'step of UniFluid' in report
  assert 'step of the VAE' not in report


def test_an_unknown_target_is_told_before_the_work(small):
  config = EvaluationConfig(targets={'fid': 3.0})
  with pytest.raises(UserError, match='targets'):
    check_evaluation(dataclasses.replace(small, evaluation=config))


def with_sources(experiment, **kinds):
  """The experiment with sources of these kinds, by their task."""
  sources = {
    task: SourceConfig(weight=1.0, kind=kind, task=task)
    for task, kind in kinds.items()
  }
  data = dataclasses.replace(experiment.data, sources=sources)
  return dataclasses.replace(experiment, data=data)


def test_a_run_without_a_task_that_is_measured(experiment):
  only = with_sources(experiment, picture='emoji')
  with pytest.raises(UserError, match='has a task that can be evaluated; add'):
    check_evaluation(only)
  check_evaluation(with_sources(experiment, vqa='tfds'))


def test_only_emoji_tasks_of_the_training_are_evaluated(experiment):
  only = with_sources(experiment, captioning='emoji', editing='folder')
  results = evaluate(fakes.Oracle(only), SMALL)
  assert results.text_to_image is results.editing is results.vqa is None
  assert set(results.measures) == {
    'vae_psnr_heldout_db',
    *(name for name in HEADLINES if name.startswith('caption')),
  }
