"""The log of a run, as it is read again."""

import pytest

from unifluid_jax.training.metrics import Meter, StepWork, read_log
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput


def test_half_a_line_of_a_killed_run_is_passed_over(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 2}\n{"st')
  assert read_log(tmp_path) == [{'step': 1}, {'step': 2}]


def test_no_log_has_no_lines(tmp_path):
  assert read_log(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step" 2}\n')
  with pytest.raises(UserError, match='metrics.jsonl is damaged'):
    read_log(tmp_path)
  with pytest.raises(UserError, match='metrics.jsonl is damaged'):
    Meter(tmp_path, 'x', 3, 2, StepWork(1, 1), Goodput())  # A run goes on.
