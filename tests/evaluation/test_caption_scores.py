"""Caption scores against those of pycocoevalcap, which COCO's server uses."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from unifluid_jax.evaluation.caption_scores import bleu, cider_d, rouge_l

EDGES = [
  ('a red fox', ['a red fox']),
  ('', ['a fox', 'a red fox runs']),
  ('fox', ['fox', 'a fox', 'the quick red fox jumps over a dog']),
  ('the the the the', ['the cat is on the mat', 'there is a cat']),
  ('a man rides a horse on the beach', ['a horse', 'a man on a beach rides']),
]


def made(seed):
  """Random sentences of few words, so that n-grams repeat."""
  rng = np.random.default_rng(seed)
  vocabulary = ('a', 'the', 'fox', 'dog', 'red', 'runs', 'on', 'mat', 'of')

  def sentence(least):
    return ' '.join(rng.choice(vocabulary, rng.integers(least, 12)))

  return [
    (sentence(0), [sentence(1) for _ in range(rng.integers(1, 6))])
    for _ in range(40)
  ]


def split(cases):
  texts = [text.split() for text, _ in cases]
  return texts, [[r.split() for r in group] for _, group in cases]


CASES = [EDGES, made(0), made(1), EDGES + made(2)]


@pytest.mark.parametrize('cases', CASES)
def test_cider_d(cases):
  scorer = CiderScorer(n=4, sigma=6.0)
  for text, group in cases:
    scorer += (text, group)
  expected, _ = scorer.compute_score()
  assert expected > 0
  assert cider_d(*split(cases)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('cases', CASES)
def test_bleu(cases):
  scorer = BleuScorer(n=4)
  for text, group in cases:
    scorer += (text, group)
  expected, _ = scorer.compute_score(option='closest', verbose=0)
  for order, value in enumerate(expected, start=1):
    assert value > 0
    assert bleu(*split(cases), order) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize('cases', CASES)
def test_rouge_l(cases):
  scorer = Rouge()
  expected = np.mean([scorer.calc_score([t], group) for t, group in cases])
  assert rouge_l(*split(cases)) == pytest.approx(expected, abs=1e-9)


def test_texts_that_are_right_and_wrong():
  texts, references = split(made(3))
  right = [group[0] for group in references]
  wrong = [['nothing', 'of', 'it', 'here']] * len(texts)
  for score, most in ((cider_d, 10), (bleu, 1), (rouge_l, 1)):
    assert score(wrong, references) < score(right, references) <= most
  single = [[text] for text in right]
  assert bleu(right, single) == pytest.approx(1)
  assert rouge_l(right, single) == pytest.approx(1)
