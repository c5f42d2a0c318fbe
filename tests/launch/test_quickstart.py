"""The quickstart: killed, it goes on; done, it does nothing."""

import json

import pytest

from tests import process

pytestmark = pytest.mark.slow


def test_killed_and_finished_and_started_again(tmp_path):
  arguments = process.flags(tmp_path)
  timing, log = tmp_path / 'timing.json', tmp_path / 'vae' / 'metrics.jsonl'
  with process.start('quickstart', *arguments) as first:
    first.watch(lambda: timing.exists() and log.exists())
    first.kill()
  before = json.loads(timing.read_text())
  assert before['seconds_total'] >= before['seconds_train'] > 1

  output = process.succeed('quickstart', *arguments)
  report = tmp_path / 'report.html'
  assert output.endswith(f'the report is {report}\n')
  after = json.loads(timing.read_text())
  metrics = json.loads((tmp_path / 'metrics.json').read_text())
  assert metrics['counts']['caption_train_exact'] == 4  # as the config says
  assert before['seconds_total'] < after['seconds_train']
  assert after['seconds_train'] < after['seconds_total']
  assert metrics['seconds_train'] == after['seconds_train']
  assert after['seconds_train'] < metrics['seconds_total']
  assert metrics['seconds_total'] <= after['seconds_total']
  assert 0.1 < metrics['peak_rss_gib'] <= after['peak_rss_gib'] < 8

  assert process.succeed('quickstart', *arguments) == (
    f'the report is {report}\n'
  )
  assert json.loads(timing.read_text()) == after
