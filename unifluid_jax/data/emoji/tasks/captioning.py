"""Captioning: (image, 'caption en') -> the emoji's name."""

from collections.abc import Sequence

import numpy as np

from unifluid_jax.data import prompts
from unifluid_jax.data.emoji.catalog import Emoji
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import (
  VARIED_SHARE,
  Drawing,
  draw,
  draw_augmented,
)
from unifluid_jax.data.emoji.splits import Cell, cells_of
from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask, pick, shuffled
from unifluid_jax.data.example import Example


class Captioning(EmojiTask):
  """Records are cells; the skin tone is drawn among the cell's.

  The target is always the canonical name, so that the likeliest caption is
  well defined; other names count in evaluation, as references.
  """

  name = 'captioning'

  def build(
    self, record: Cell, rng: np.random.Generator, augment: bool
  ) -> Example:
    """An image and its name."""
    emoji = pick(record.members(), rng)
    picture = Drawing(record.artist, emoji.hex)
    side = self.config.image_size
    if augment and rng.random() < VARIED_SHARE:
      background = pick(tuple(BACKGROUNDS), rng)
      picture = picture._replace(background=background)
      image = draw_augmented(picture, side, rng)
    else:
      image = draw(picture, side)
    return Example(
      prefix=(image, prompts.CAPTION),
      target=emoji.name,
      task=self.name,
      facts={
        'picture': picture,
        'concept': emoji.concept,
        'references': references_of(emoji, record.artist),
      },
    )

  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Cell]:
    return shuffled(cells_of(self.config, self.split))


def references_of(emoji: Emoji, artist: str) -> tuple[str, ...]:
  """All right captions: each name, alone and with the artist's."""
  names = (emoji.concept, *emoji.alternative_names)
  captions = tuple(emoji.with_tone(name) for name in names)
  return captions + tuple(f'a {artist} emoji of {c}' for c in captions)
