"""The vocabulary that a training writes into its run's folder."""

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.workdir.vocabulary_file import find_tokenizer, keep_tokenizer


def make_tokenizer(experiment: Experiment, workdir: AnyPath) -> Tokenizer:
  """Finds the vocabulary of a run and keeps it in the run's folder."""
  tokenizer = find_tokenizer(experiment, workdir)
  keep_tokenizer(tokenizer, workdir)
  return tokenizer
