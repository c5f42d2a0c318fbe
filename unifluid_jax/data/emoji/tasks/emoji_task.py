"""What the tasks share: random access to records, and examples from them."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from unifluid_jax.data.emoji.splits import EmojiConfig, unit_hash
from unifluid_jax.data.example import Example
from unifluid_jax.utils.errors import UserError

T = TypeVar('T')


class EmojiTask(abc.ABC):
  """A task on a split: `task[i]` is a record, `build` makes it an example.

  Records are small named tuples of texts; the same index always gives the same
  record. All randomness of an example comes from the generator that `build`
  is given. Every prefix of the records is a fair sample of all.

  Attributes:
    name: The task's name, as in `Example.task`.
    splits: The splits that the task has.
    kinds: The kinds of records that the task has, if it has several.
  """

  name: ClassVar[str]
  splits: ClassVar[tuple[str, ...]] = ('train', 'cell', 'concept')
  kinds: ClassVar[tuple[str, ...]] = ()

  def __init__(
    self, config: EmojiConfig, split: str, kinds: Sequence[str] = ()
  ):
    """Lists the records.

    Args:
      config: Concepts, artists and image size.
      split: One of `splits`.
      kinds: Some of the task's kinds; none for all.

    Raises:
      UserError: The task has no such split or kind, or the split is empty.
    """
    if split not in self.splits:
      raise UserError(
        f'The task {self.name!r} has no split {split!r}; choose one of '
        f'{", ".join(self.splits)}.'
      )
    for kind in kinds:
      if kind not in self.kinds:
        raise UserError(
          f'The task {self.name!r} has no kind {kind!r}; it has '
          f'{", ".join(self.kinds) or "none"}.'
        )
    self.config = config
    self.split = split
    self._records = self._list_records(tuple(kinds) or self.kinds)

  def __len__(self) -> int:
    """Number of records."""
    return len(self._records)

  def __getitem__(self, index: int) -> Any:
    """The record of an index."""
    return self._records[index]

  @abc.abstractmethod
  def build(
    self, record: Any, rng: np.random.Generator, augment: bool
  ) -> Example:
    """Makes an example.

    Args:
      record: One of the task's records.
      rng: Source of all that the record leaves open.
      augment: Vary texts and images, for training. Otherwise the text is the
        canonical one and the image is not distorted.
    """

  @abc.abstractmethod
  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Any]:
    """The records of these kinds, of the config and the split."""


class Interleaved(Sequence[T]):
  """Lists of unequal lengths taken in turn, the shorter ones repeated.

  Item i is of list i mod n, so that a uniform draw of an index is a uniform
  draw of the list.
  """

  def __init__(self, lists: Mapping[str, Sequence[T]]):
    """Shuffles each list and leaves out the empty ones."""
    self._lists = [shuffled(items) for items in lists.values() if items]

  def __len__(self) -> int:
    return len(self._lists) * max(map(len, self._lists), default=0)

  def __getitem__(self, index):
    if not 0 <= index < len(self):
      raise IndexError(index)
    turn, which = divmod(index, len(self._lists))
    items = self._lists[which]
    return items[turn % len(items)]


def shuffled(items: Sequence[T]) -> list[T]:
  """The items in an order that is random but always the same."""
  return sorted(items, key=lambda item: unit_hash('order', repr(item)))


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
  """One of the items, uniformly."""
  return items[int(rng.integers(len(items)))]
