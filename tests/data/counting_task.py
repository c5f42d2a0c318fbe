"""A task for tests, in a module that worker processes can import."""

import dataclasses

import numpy as np

from unifluid_jax.data.example import Example


@dataclasses.dataclass(frozen=True)
class CountingTask:
  """Record i is the number i; its prompt spells i in letters.

  The target is a random letter, or an image of one random value where
  `target_size` is given.
  """

  name: str
  size: int
  target_size: int = 0

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> int:
    return range(self.size)[index]

  def build(
    self, record: int, rng: np.random.Generator, augment: bool
  ) -> Example:
    facts = {'record': record, 'augment': augment}
    text = ''.join(chr(ord('a') + int(digit)) for digit in str(record))
    if not self.target_size:
      draw = 'abcdefghij'[rng.integers(10)]
      return Example((text,), draw, self.name, facts)
    shape = (self.target_size, self.target_size, 3)
    image = np.full(shape, rng.integers(256), np.uint8)
    return Example((text,), image, self.name, facts)
