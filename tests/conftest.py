"""Shape annotations are checked at run time in every test."""

import os

from jaxtyping import install_import_hook

# The hook looks it up by its name.
import tests.typechecker  # noqa: F401

# Tests compile much and compute little: compiling fast is what counts.
os.environ['XLA_FLAGS'] = (
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false '
  + os.environ.get('XLA_FLAGS', '')
)
install_import_hook('unifluid_jax', 'tests.typechecker.checked')

import pytest  # noqa: E402

from unifluid_jax.data.tokenizer import Tokenizer  # noqa: E402


@pytest.fixture(scope='session')
def letters(tmp_path_factory) -> Tokenizer:
  """A tokenizer that spells letter by letter, so that counts are plain."""
  path = tmp_path_factory.mktemp('tokenizer') / 'letters.model'
  return Tokenizer.train(['a b c d e f g h i j o'], 274, path)
