"""Checkpoints that several tests change."""

import pytest

from tests.weights import hub


@pytest.fixture
def folder(tmp_path):
  """A Gemma in one file."""
  return hub.save(hub.gemma('gemma 2 GQA'), tmp_path / 'hf')
