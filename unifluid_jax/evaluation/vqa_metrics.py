"""Question answering: is the likeliest answer the right one, word for word?

Questions have their canonical wording. Those about one emoji cover every image
of a split, in all tones; those about scenes cover one scene per cell.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.drawing import Drawing, list_drawings
from unifluid_jax.data.emoji.scenes import Scene
from unifluid_jax.data.emoji.splits import Cell, EmojiConfig
from unifluid_jax.data.emoji.tasks.vqa import (
  WORDINGS,
  VisualQuestionAnswering,
  candidates,
  draw_view,
  list_questions,
)
from unifluid_jax.data.example import Image
from unifluid_jax.evaluation.bank import emoji_of, nearest
from unifluid_jax.evaluation.measure import Measure, Measures, share, shares
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.inference import Model


@dataclasses.dataclass(frozen=True)
class ImageQuestion:
  """A question about an image.

  Attributes:
    kind: Type of the question, a key of WORDINGS.
    cell: Cell that it is about.
    view: Content of the image.
    text: The question.
    answer: The right answer.
  """

  kind: str
  cell: Cell
  view: Drawing | Scene
  text: str
  answer: str

  def draw(self, side: int) -> Image:
    """Draws the image."""
    return draw_view(self.view, side)


@dataclasses.dataclass(frozen=True)
class Answered:
  """A question and the model's answer."""

  question: ImageQuestion
  prediction: str

  @property
  def right(self) -> bool:
    """Whether the answer is the right one."""
    return self.prediction == self.question.answer


@dataclasses.dataclass(frozen=True)
class QuestionAnswering:
  """Answers to questions about held-out cells.

  Attributes:
    heldout: The answers.
    measures: Shares of the answers that are right.
  """

  heldout: list[Answered]
  measures: Measures


def evaluate_vqa(model: Model, config: EvaluationConfig) -> QuestionAnswering:
  """Answers every type of question about held-out cells, greedily."""
  emoji = model.experiment.emoji()
  rng = rng_of(config.seed, 'questions')
  questions = [
    question
    for group in _by_kind(_questions(emoji, 'cell', rng)).values()
    for question in some(group, config.questions, rng)
  ]
  training = _by_kind(_questions(emoji, 'train', rng))
  heldout = _answer(model, questions, config.seed)
  measures = _measures(heldout, training)
  measures |= {
    'vqa_category_heldout': measures['vqa_heldout/category'],
    'vqa_category_majority': measures['vqa_majority/category'],
    'vqa_category_nn_baseline': _neighbors(questions, emoji),
  }
  return QuestionAnswering(heldout, measures)


def _questions(
  config: EmojiConfig, split: str, rng: np.random.Generator
) -> Iterator[ImageQuestion]:
  """Every type of question about every cell of a split."""
  task = VisualQuestionAnswering(config, split)
  for kind, (wording, *_) in WORDINGS.items():
    for question in list_questions(kind, config, split):
      for emoji in candidates(question):
        view, words, answer = task.ask(question, emoji, rng, vary=False)
        text = wording.format(**words)
        yield ImageQuestion(kind, question.cell, view, text, answer)


def _by_kind(
  questions: Iterable[ImageQuestion],
) -> dict[str, list[ImageQuestion]]:
  groups = collections.defaultdict(list)
  for question in questions:
    groups[question.kind].append(question)
  return dict(groups)


def _answer(
  model: Model, questions: Sequence[ImageQuestion], seed: int
) -> list[Answered]:
  logging.info('question answering: %d questions', len(questions))
  side = model.experiment.data.image_size
  prediction = model.answer(
    [question.draw(side) for question in questions],
    [question.text for question in questions],
    seed=seed,
    sampling=dataclasses.replace(
      model.experiment.text_sampling, temperature=0.0
    ),
  )
  return [Answered(a, s) for a, s in zip(questions, prediction, strict=True)]


def _measures(
  heldout: Sequence[Answered], training: Mapping[str, Sequence[ImageQuestion]]
) -> Measures:
  """Computes the accuracy by type, and that of the most frequent answer.

  A cell gives each of its answers one vote: its skin tones, which are but
  drawings of one concept, would make the few concepts that have them win.
  """
  votes = {
    kind: dict.fromkeys((question.cell, question.answer) for question in group)
    for kind, group in training.items()
  }
  seen = {
    kind: collections.Counter(answer for _, answer in pairs)
    for kind, pairs in votes.items()
  }
  chances = {kind: 1 / len(answers) for kind, answers in seen.items()}
  majority = {
    kind: answers.most_common(1)[0][0] for kind, answers in seen.items()
  }
  questions = [answered.question for answered in heldout]
  kinds = [q.kind for q in questions]
  majority_rights = [q.answer == majority[q.kind] for q in questions]
  return {
    **shares('vqa_heldout', kinds, [a.right for a in heldout], chances),
    **shares('vqa_majority', kinds, majority_rights),
  }


def _neighbors(
  questions: Sequence[ImageQuestion], config: EmojiConfig
) -> Measure:
  """The nearest training image's category, for the questions about it."""
  about = [q for q in questions if q.kind == 'category']
  images = np.stack([q.draw(config.image_size) for q in about])
  found = nearest(images, list_drawings(config, 'train'))
  return share(
    [
      emoji_of(neighbors[0]).group == q.answer
      for q, neighbors in zip(about, found, strict=True)
    ]
  )
