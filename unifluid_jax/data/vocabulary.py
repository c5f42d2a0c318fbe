"""A vocabulary for the texts of tasks."""

from collections.abc import Iterator, Mapping

import numpy as np

from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer, one_line
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath

# Examples of a task that the vocabulary is trained on.
_EXAMPLES = 2000


def train_tokenizer(
  tasks: Mapping[str, Task], vocab_size: int, path: AnyPath | None = None
) -> Tokenizer:
  """Trains a SentencePiece vocabulary on what tasks read and write.

  Args:
    tasks: The tasks.
    vocab_size: Number of pieces.
    path: Where the model is written; None to keep it in memory.

  Raises:
    UserError: A task has no records, or one that is broken, or the texts do
      not allow for a vocabulary of this size.
  """
  # As `Tokenizer.encode_line` will have them.
  texts = map(one_line, _texts(tasks))
  return Tokenizer.train(texts, vocab_size, path)


def _texts(tasks: Mapping[str, Task]) -> Iterator[str]:
  for name in sorted(tasks):
    task = tasks[name]
    if not len(task):
      raise UserError(f'the task {name!r} has no records; drop it')
    if isinstance(task, FolderTask):
      # Without its images, each of which would be a file to decode.
      for i in _spread(task):
        read, written = task.texts(i)
        yield from (*read, *written)
    else:
      yield from _drawn(task)


def _drawn(task: Task) -> Iterator[str]:
  """Texts of examples, as training draws them."""
  rng = np.random.default_rng(0)
  for i in _spread(task):
    example = task.build(task[i], rng, augment=True)
    for part in (*example.prefix, example.target):
      if isinstance(part, str):
        yield part


def _spread(task: Task) -> Iterator[int]:
  """Indices of records: evenly spread, and again from the first on."""
  every = max(len(task) // _EXAMPLES, 1)
  for i in range(_EXAMPLES):
    yield i * every % len(task)
