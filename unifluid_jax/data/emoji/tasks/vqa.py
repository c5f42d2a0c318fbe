"""Visual question answering: (image, 'answer en {question}') -> answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unifluid_jax.data import prompts
from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.concepts import concepts_of
from unifluid_jax.data.emoji.pictures import (
  VARIED_SHARE,
  Picture,
  draw,
  draw_augmented,
)
from unifluid_jax.data.emoji.scenes import QUADRANTS, draw_scene
from unifluid_jax.data.emoji.splits import Cell, EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks import picture_questions, scene_questions
from unifluid_jax.data.emoji.tasks.companions import Companions
from unifluid_jax.data.emoji.tasks.task import Interleaved, Task, pick
from unifluid_jax.data.example import Example, Image

WORDINGS = picture_questions.WORDINGS | scene_questions.WORDINGS
YES_NO = picture_questions.YES_NO + scene_questions.YES_NO


class Question(NamedTuple):
  """A record: what is asked about what.

  Attributes:
    kind: Type of the question, a key of WORDINGS.
    cell: What it is about; its skin tone is drawn where it has several.
    yes: The answer, where the question is a yes/no question.
  """

  kind: str
  cell: Cell
  yes: bool = True


class VisualQuestionAnswering(Task):
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
    is_scene = record.kind in scene_questions.WORDINGS
    make = self._make_scene if is_scene else self._make_picture
    image, words, answer, facts = make(record, rng, augment)
    wordings = WORDINGS[record.kind]
    wording = pick(wordings, rng) if augment else wordings[0]
    question = wording.format(**words)
    return Example(
      prefix=(image, prompts.ANSWER.format(question=question)),
      target=answer,
      task=self.name,
      facts={'question': record.kind, 'answer': answer, **facts},
    )

  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Question]:
    cells = cells_of(self.config, self.split)
    return Interleaved(
      {
        kind: [
          Question(kind, cell, yes)
          for cell in cells
          for yes in ((True, False) if kind in YES_NO else (True,))
          if kind in scene_questions.WORDINGS
          or picture_questions.candidates(kind, cell)
        ]
        for kind in kinds
      }
    )

  def _make_picture(
    self, record: Question, rng: np.random.Generator, augment: bool
  ) -> tuple[Image, dict[str, str], str, dict[str, Any]]:
    """The image, the question's words, the answer and the facts."""
    kind, cell, yes = record
    emoji = pick(picture_questions.candidates(kind, cell), rng)
    background = 'white'
    vary = augment and rng.random() < VARIED_SHARE
    if vary or kind == 'background':
      background = pick(tuple(BACKGROUNDS), rng)
    picture = Picture(cell.artist, emoji.hex, background)
    words, answer = picture_questions.ask(
      kind, emoji, picture, yes, self._concepts, rng
    )
    side = self.config.image_size
    image = draw_augmented(picture, side, rng) if vary else draw(picture, side)
    return image, words, answer, {'picture': picture}

  def _make_scene(
    self, record: Question, rng: np.random.Generator, augment: bool
  ) -> tuple[Image, dict[str, str], str, dict[str, Any]]:
    """The image, the question's words, the answer and the facts."""
    kind, cell, yes = record
    emoji = load_catalog().emojis[cell.base]
    others = self._companions.draw(emoji, cell.artist, len(QUADRANTS), rng)
    background = pick(tuple(BACKGROUNDS), rng) if augment else 'white'
    side = self.config.image_size
    scene, words, answer = scene_questions.ask(
      kind, emoji, cell.artist, background, yes, others, side, rng
    )
    return draw_scene(scene, side), words, answer, {'scene': scene}
