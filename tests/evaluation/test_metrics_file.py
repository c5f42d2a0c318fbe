"""The JSON object of the measures."""

import pytest

from unifluid_jax.evaluation.measure import Measure
from unifluid_jax.evaluation.metrics_file import read_timing, to_metrics
from unifluid_jax.utils.errors import UserError

NOTHING = {'seconds_train': None, 'seconds_total': None, 'peak_rss_gib': None}


def test_groups_become_objects():
  measures = {
    'a': Measure(0.5, 4, 0.1),
    'group/b': Measure(1.0, 3),
    'group/c': Measure(0.0, 2, 0.5),
  }
  assert to_metrics(measures, {'concepts': 7}, NOTHING, {'seed': 3}) == {
    'a': 0.5,
    'group': {'b': 1.0, 'c': 0.0},
    'concepts': 7,
    'counts': {'a': 4, 'group': {'b': 3, 'c': 2}},
    'chance': {'a': 0.1, 'group': {'c': 0.5}},
    **NOTHING,
    'manifest': {'seed': 3},
  }


def test_timing_is_taken_where_there_is_one(tmp_path):
  assert read_timing(tmp_path) == NOTHING
  file = tmp_path / 'timing.json'
  file.write_text('{"seconds_train": 12.5, "other": 1}')
  assert read_timing(tmp_path) == NOTHING | {'seconds_train': 12.5}


@pytest.mark.parametrize(
  'text',
  [
    '{"seconds_train": 12',
    '[1]',
    '{"seconds_total": "12:30"}',
    '{"seconds_total": NaN}',
  ],
)
def test_a_broken_timing_is_named(tmp_path, text):
  (tmp_path / 'timing.json').write_text(text)
  with pytest.raises(UserError, match='timing.json'):
    read_timing(tmp_path)
