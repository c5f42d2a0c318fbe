"""CIDEr-D, BLEU and ROUGE-L of texts against several references.

They equal those of the COCO caption evaluation (pycocoevalcap) on the same
words. Texts here are split by `overlap.words`, not by the Penn Treebank
tokenizer of that evaluation, which needs Java.
"""

import collections
import math
from collections.abc import Iterable, Sequence

Words = Sequence[str]

_ORDERS = 4
"""Longest n-gram."""

_CIDER_SIGMA = 6.0
_ROUGE_BETA = 1.2
# pycocoevalcap keeps BLEU's fractions from 0 / 0 with these.
_TINY, _SMALL = 1e-15, 1e-9


def cider_d(
  texts: Sequence[Words], references: Sequence[Sequence[Words]]
) -> float:
  """Computes CIDEr-D (Vedantam et al., arXiv 1411.5726, section 4 and 6).

  n-grams are weighted by how few images have them in their references; those
  of a single image therefore weigh nothing.

  Args:
    texts: A text of each image.
    references: References of each image, one or more.

  Returns:
    The mean over the images, in 0..10.
  """
  frequency: collections.Counter = collections.Counter()
  for group in references:
    frequency.update({g for words in group for g in _ngrams(words)})
  images = math.log(len(references))

  def weigh(words):
    vectors: list[dict] = [{} for _ in range(_ORDERS)]
    for ngram, count in _ngrams(words).items():
      weight = images - math.log(max(1, frequency[ngram]))
      vectors[len(ngram) - 1][ngram] = count * weight
    return vectors

  def compare(words, reference):
    gap = max(len(words) - 1, 0) - max(len(reference) - 1, 0)
    penalty = math.exp(-(gap**2) / (2 * _CIDER_SIGMA**2))
    pairs = zip(weigh(words), weigh(reference), strict=True)
    return penalty * _mean(_clipped_cosine(a, b) for a, b in pairs)

  return 10 * _mean(
    _mean(compare(words, reference) for reference in group)
    for words, group in zip(texts, references, strict=True)
  )


def _clipped_cosine(a: dict, b: dict) -> float:
  product = sum(min(a[ngram], b[ngram]) * b[ngram] for ngram in a.keys() & b)
  norms = math.sqrt(_squares(a) * _squares(b))
  return product / norms if norms else product


def _squares(vector: dict) -> float:
  return sum(value**2 for value in vector.values())


def bleu(
  texts: Sequence[Words],
  references: Sequence[Sequence[Words]],
  order: int = _ORDERS,
) -> float:
  """Computes corpus BLEU (Papineni et al., 2002), 0 to 1.

  The brevity penalty takes the reference whose length is closest.

  Args:
    texts: A text of each image.
    references: References of each image, one or more.
    order: Longest n-gram.
  """
  right, total = [0] * order, [0] * order
  length = closest = 0
  for words, group in zip(texts, references, strict=True):
    length += len(words)
    closest += min((abs(len(r) - len(words)), len(r)) for r in group)[1]
    most: collections.Counter = collections.Counter()
    for reference in group:
      most |= _ngrams(reference)
    for ngram, count in (_ngrams(words) & most).items():
      if len(ngram) <= order:
        right[len(ngram) - 1] += count
    for n in range(order):
      total[n] += max(0, len(words) - n)
  logs = [
    math.log((a + _TINY) / (b + _SMALL))
    for a, b in zip(right, total, strict=True)
  ]
  ratio = (length + _TINY) / (closest + _SMALL)
  return math.exp(_mean(logs) + min(0.0, 1 - 1 / ratio))


def rouge_l(
  texts: Sequence[Words], references: Sequence[Sequence[Words]]
) -> float:
  """Computes ROUGE-L (Lin, 2004): F-score of the longest common subsequence.

  As in pycocoevalcap, the best precision and the best recall may come from two
  references.

  Returns:
    The mean over the images, 0 to 1.
  """

  def score(words, group):
    common = [_common_subsequence(words, reference) for reference in group]
    precision = max(common) / max(len(words), 1)
    recall = max(
      c / max(len(reference), 1)
      for c, reference in zip(common, group, strict=True)
    )
    if not precision or not recall:
      return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)

  return _mean(map(score, texts, references))


def _common_subsequence(a: Words, b: Words) -> int:
  """Length of the longest common subsequence."""
  lengths = [0] * (len(b) + 1)
  for word in a:
    before = 0
    for i, other in enumerate(b, start=1):
      before, lengths[i] = (
        lengths[i],
        before + 1 if word == other else max(lengths[i], lengths[i - 1]),
      )
  return lengths[-1]


def _ngrams(words: Words) -> collections.Counter:
  """Counts the n-grams of all orders."""
  return collections.Counter(
    tuple(words[i : i + n])
    for n in range(1, _ORDERS + 1)
    for i in range(len(words) - n + 1)
  )


def _mean(values: Iterable[float]) -> float:
  values = list(values)
  return sum(values) / len(values)
