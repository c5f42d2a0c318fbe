"""Shape annotations are checked at run time in every test."""

from jaxtyping import install_import_hook

install_import_hook('unifluid_jax', 'beartype.beartype')

import pathlib  # noqa: E402

import pytest  # noqa: E402


@pytest.fixture(scope='session')
def letters(tmp_path_factory):
  """A tokenizer that spells letter by letter, so that counts are plain."""
  from unifluid_jax.data.tokenizer import Tokenizer

  path: pathlib.Path = tmp_path_factory.mktemp('tokenizer') / 'letters.model'
  return Tokenizer.train(['a b c d e f g h i j o'], 274, path)
