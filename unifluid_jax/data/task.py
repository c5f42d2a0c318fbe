"""The interface of tasks."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from unifluid_jax.data.example import Example


@runtime_checkable
class Task(Protocol):
  """Records under random access, and how to make an example of one.

  A task is picklable: the pipeline may send it to worker processes.
  """

  def __len__(self) -> int:
    """Number of records."""
    ...

  def __getitem__(self, index: int) -> Any:
    """Reads one record; equal indices give equal records."""
    ...

  def build(
    self, record: Any, rng: np.random.Generator, augment: bool
  ) -> Example:
    """Makes an example of a record.

    Args:
      record: What `self[i]` gave.
      rng: The only source of randomness (template, augmentation, ...).
      augment: Whether to vary the example, as in training.
    """
    ...
