"""A vocabulary for the texts of tasks."""

from collections.abc import Iterator, Mapping

import numpy as np

from unifluid_jax.data.example import Example
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError
from unifluid_jax.paths import AnyPath

# Examples of a task that the vocabulary is trained on.
_EXAMPLES = 2000


def train_tokenizer(
  tasks: Mapping[str, Task], vocab_size: int, path: AnyPath
) -> Tokenizer:
  """Trains a SentencePiece vocabulary on what tasks read and write.

  Args:
    tasks: The tasks.
    vocab_size: Number of pieces.
    path: Where the model is written.

  Raises:
    UserError: A task has no records, or one that is broken, or the texts do
      not allow for a vocabulary of this size.
  """
  return Tokenizer.train(_texts(tasks), vocab_size, path)


def _texts(tasks: Mapping[str, Task]) -> Iterator[str]:
  for name in sorted(tasks):
    task = tasks[name]
    if not len(task):
      raise UserError(f'the task {name!r} has no records; drop it')
    rng = np.random.default_rng(0)
    for i in range(_EXAMPLES):
      record = task[i * max(len(task) // _EXAMPLES, 1) % len(task)]
      yield from _texts_of(task.build(record, rng, augment=True))


def _texts_of(example: Example) -> Iterator[str]:
  for part in (*example.prefix, example.target):
    if isinstance(part, str):
      yield part
