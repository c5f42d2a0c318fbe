"""config.tokenizer: the vocabulary."""

import dataclasses

from unifluid_jax.utils.errors import (
  check_least,
  check_most,
)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """The vocabulary.

  Attributes:
    path: A SentencePiece model, such as Gemma's; empty to train one on the
      texts of the tasks.
    vocab_size: Largest size of a trained vocabulary.
  """

  path: str = ''
  vocab_size: int = 1024

  def __post_init__(self):
    check_least('tokenizer', self, 1, 'vocab_size')
    check_most('tokenizer', self, 2**24, 'vocab_size')
