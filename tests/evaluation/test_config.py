"""Mistakes in the config of an evaluation."""

import pytest

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.evaluation.report.measures import check_targets
from unifluid_jax.utils.errors import UserError


def test_amounts_are_positive():
  with pytest.raises(UserError, match='evaluation.samples is 0'):
    EvaluationConfig(samples=0)
  with pytest.raises(UserError, match='evaluation.seed is -1'):
    EvaluationConfig(seed=-1)


def test_targets_are_of_known_measures():
  check_targets(EvaluationConfig(targets={'edit_exact_nn': 0.5}))
  with pytest.raises(
    UserError, match="'edit_exact'; did you mean 'edit_exact_"
  ):
    check_targets(EvaluationConfig(targets={'edit_exact': 0.5}))
