"""Visual question answering: (image, 'answer en {question}') -> answer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from unifluid_jax.data import prompts
from unifluid_jax.data.emoji.catalog import Emoji, load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.concepts import concepts_of
from unifluid_jax.data.emoji.drawing import (
  VARIED_SHARE,
  Drawing,
  draw,
  draw_augmented,
)
from unifluid_jax.data.emoji.scenes import QUADRANTS, Scene, draw_scene
from unifluid_jax.data.emoji.splits import Cell, EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks import picture_questions, scene_questions
from unifluid_jax.data.emoji.tasks.companions import Companions
from unifluid_jax.data.emoji.tasks.emoji_task import (
  EmojiTask,
  Interleaved,
  pick,
)
from unifluid_jax.data.example import Example

WORDINGS = picture_questions.WORDINGS | scene_questions.WORDINGS
YES_NO = picture_questions.YES_NO + scene_questions.YES_NO


class Question(NamedTuple):
  """A record: a type of question and its subject.

  Attributes:
    kind: Type of the question, a key of WORDINGS.
    cell: What it is about; its skin tone is drawn where it has several.
    yes: The answer, where the question is a yes/no question.
  """

  kind: str
  cell: Cell
  yes: bool = True


class VisualQuestionAnswering(EmojiTask):
  """Questions about single emoji and about scenes, each type equally often.

  The scenes of a held-out split show one held-out object, the one in question,
  among objects that training has seen.
  """

  name = 'vqa'
  kinds = (*WORDINGS,)

  def __init__(
    self, config: EmojiConfig, split: str, kinds: Sequence[str] = ()
  ):
    super().__init__(config, split, kinds)
    self._concepts = concepts_of(config.concepts)
    self._companions = Companions(config)

  def build(
    self, record: Question, rng: np.random.Generator, augment: bool
  ) -> Example:
    """An image, a question and its answer."""
    emoji = pick(candidates(record), rng)
    is_scene = record.kind in scene_questions.WORDINGS
    vary = augment and (is_scene or rng.random() < VARIED_SHARE)
    view, words, answer = self.ask(record, emoji, rng, vary)
    side = self.config.image_size
    if vary and isinstance(view, Drawing):
      image = draw_augmented(view, side, rng)
    else:
      image = draw_view(view, side)
    wordings = WORDINGS[record.kind]
    wording = pick(wordings, rng) if augment else wordings[0]
    question = wording.format(**words)
    return Example(
      prefix=(image, prompts.ANSWER.format(question=question)),
      target=answer,
      task=self.name,
      facts={
        'question': record.kind,
        'answer': answer,
        'scene' if is_scene else 'picture': view,
      },
    )

  def ask(
    self, question: Question, emoji: Emoji, rng: np.random.Generator, vary: bool
  ) -> tuple[Drawing | Scene, dict[str, str], str]:
    """Draws everything that a question leaves open except its wording.

    Args:
      question: The question.
      emoji: What it is about, one of its `candidates`.
      rng: Source of what is open.
      vary: Whether to color the background of other questions, too.

    Returns:
      What is seen, the words that fill the wording's braces, and the answer.
    """
    kind, cell, yes = question
    if kind in scene_questions.WORDINGS:
      others = self._companions.draw(emoji, cell.artist, len(QUADRANTS), rng)
      background = pick(tuple(BACKGROUNDS), rng) if vary else 'white'
      side = self.config.image_size
      return scene_questions.ask(
        kind, emoji, cell.artist, background, yes, others, side, rng
      )
    colored = vary or kind == 'background'
    background = pick(tuple(BACKGROUNDS), rng) if colored else 'white'
    picture = Drawing(cell.artist, emoji.hex, background)
    return picture, *picture_questions.ask(
      kind, emoji, picture, yes, self._concepts, rng
    )

  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Question]:
    return Interleaved(
      {kind: list_questions(kind, self.config, self.split) for kind in kinds}
    )


def list_questions(
  kind: str, config: EmojiConfig, split: str
) -> list[Question]:
  """All questions of a type in a split; each yes/no question both ways."""
  questions = (
    Question(kind, cell, yes)
    for cell in cells_of(config, split)
    for yes in ((True, False) if kind in YES_NO else (True,))
  )
  return [question for question in questions if candidates(question)]


def candidates(question: Question) -> tuple[Emoji, ...]:
  """The members of a cell that its question can be about."""
  if question.kind in scene_questions.WORDINGS:
    return (load_catalog().emojis[question.cell.base],)
  return picture_questions.candidates(question.kind, question.cell)


def draw_view(
  view: Drawing | Scene, side: int
) -> UInt8[np.ndarray, '{side} {side} 3']:
  """The pixels of what a question is about, RGB."""
  if isinstance(view, Scene):
    return draw_scene(view, side)
  return draw(view, side)
