"""How many words two texts share."""

import collections
import unicodedata
from collections.abc import Iterable


def best_overlap(text: str, references: Iterable[str]) -> float:
  """The largest overlap of a text with any of some references, 0 to 1.

  It is the F1 score of the words, each counted as often as it occurs: twice the
  words that both have, over the words of both. Case, and punctuation around a
  word, make no difference. Two texts without any word are equal.
  """
  return max(_overlap(text, reference) for reference in references)


def _overlap(one: str, other: str) -> float:
  counts = [collections.Counter(words(text)) for text in (one, other)]
  total = sum(count.total() for count in counts)
  return 2 * (counts[0] & counts[1]).total() / total if total else 1.0


def words(text: str) -> list[str]:
  """The words of a text, in lower case and without punctuation around them."""
  stripped = (_strip(word) for word in text.casefold().split())
  return [word for word in stripped if word]


def _strip(word: str) -> str:
  """A word without the punctuation around it."""
  kept = [i for i, c in enumerate(word) if unicodedata.category(c)[0] != 'P']
  return word[kept[0] : kept[-1] + 1] if kept else ''
