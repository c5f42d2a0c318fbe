"""A small vocabulary and a small layout."""

import pytest

from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.tokenizer import Tokenizer


@pytest.fixture(scope='session')
def tokenizer(letters: Tokenizer) -> Tokenizer:
  """Spells letter by letter."""
  return letters


@pytest.fixture(scope='session')
def layout() -> LayoutConfig:
  """Images of 2 tokens and 2 pixels to read, 4 tokens and 4 pixels to write."""
  return LayoutConfig(
    understanding_tokens=2,
    generated_tokens=4,
    source_tokens=True,
    understanding_size=2,
    generated_size=4,
    max_text=6,
  )
