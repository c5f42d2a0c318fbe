"""Shape annotations are checked at run time in every test."""

import os
import pathlib

from jaxtyping import install_import_hook

# The hook looks it up by its name.
import tests.typechecker  # noqa: F401

# Tests compile much and compute little: compiling fast is what counts.
os.environ['XLA_FLAGS'] = (
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false '
  '--xla_cpu_parallel_codegen_split_count=1 ' + os.environ.get('XLA_FLAGS', '')
)
# Each check takes time: only modules with shapes to check have any.
_ROOT = pathlib.Path(__file__).parents[1]
_CHECKED = [
  '.'.join(file.relative_to(_ROOT).with_suffix('').parts)
  for file in (_ROOT / 'unifluid_jax').rglob('*.py')
  if 'from jaxtyping import' in file.read_text(encoding='utf-8')
]
install_import_hook(_CHECKED, 'tests.typechecker.checked')

import pytest  # noqa: E402

from unifluid_jax.data.tokenizer import Tokenizer  # noqa: E402


@pytest.fixture(scope='session')
def letters(tmp_path_factory) -> Tokenizer:
  """A tokenizer that spells letter by letter, so that counts are plain."""
  path = tmp_path_factory.mktemp('tokenizer') / 'letters.model'
  return Tokenizer.train(['a b c d e f g h i j o'], 274, path)
