"""The report's texts: captions, questions and answers."""

from collections.abc import Sequence

from unifluid_jax.data.emoji.drawing import draw
from unifluid_jax.evaluation.captioning_metrics import Captioned, Captioning
from unifluid_jax.evaluation.report.gallery import gallery
from unifluid_jax.evaluation.report.markup import (
  card,
  paragraph,
  section,
  tile,
)
from unifluid_jax.evaluation.subsampling import rng_of
from unifluid_jax.evaluation.vqa_metrics import QuestionAnswering

CAPTIONS = 12
ANSWERS = 30
NOTHING = '(nothing)'
"""Stands for an empty text."""


def captioning_section(result: Captioning, side: int, seed: int) -> str:
  """Captions of images.

  Args:
    result: The captions.
    side: Side of the images in pixels.
    seed: Of the choice.
  """
  rng = rng_of(seed, 'report: captioning')

  def show(title: str, group: Sequence[Captioned]) -> str:
    return gallery(
      title,
      [captioned.right for captioned in group],
      lambda index: _caption_card(group[index], side),
      rng,
      CAPTIONS,
    )

  return section(
    'Captions',
    paragraph(
      'A caption counts as right (\u2713) if it is, word for word, one of the '
      'references. Each reference also counts as \u201ca noto emoji '
      'of \u2026\u201d with the artist\u2019s name.'
    ),
    show('Training images', result.train),
    show('Held-out drawings', result.heldout),
  )


def vqa_section(
  result: QuestionAnswering, table: str, side: int, seed: int
) -> str:
  """Answers to questions.

  Args:
    result: The answers.
    table: The accuracy of each type of question, as HTML.
    side: Side of the images in pixels.
    seed: Of the choice.
  """

  def show(index: int) -> str:
    answered = result.heldout[index]
    question = answered.question
    lines = [answered.prediction or NOTHING]
    if not answered.right:
      lines.append(f'right: {question.answer}')
    return card(
      [tile(question.draw(side))],
      *lines,
      above=question.text,
      right=answered.right,
    )

  return section(
    'Questions and answers',
    paragraph(
      'Questions about held-out drawings, alone and in scenes; the answer '
      'must be right word for word.'
    ),
    table,
    gallery(
      'Questions',
      [answered.right for answered in result.heldout],
      show,
      rng_of(seed, 'report: questions'),
      ANSWERS,
    ),
  )


def _caption_card(captioned: Captioned, side: int) -> str:
  """An image, its caption, and the references without the artist's name."""
  artist = captioned.picture.artist
  names = [
    reference
    for reference in captioned.references
    if not reference.startswith(f'a {artist} emoji of ')
  ]
  return card(
    [tile(draw(captioned.picture, side), artist)],
    captioned.caption or NOTHING,
    f'references: {" / ".join(names)}',
    right=captioned.right,
  )
