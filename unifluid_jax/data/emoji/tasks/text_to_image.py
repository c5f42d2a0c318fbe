"""Text to image: '{name}, {artist} style' -> the drawing."""

from collections.abc import Sequence

import numpy as np

from unifluid_jax.data.emoji.catalog import Emoji
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.data.emoji.splits import Cell, cells_of
from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask, pick, shuffled
from unifluid_jax.data.example import Example

VARIANTS = (
  '{artist} style, {subject}',
  'a {artist} emoji of {subject}',
  '{subject} in the style of {artist}',
)
"""Other wordings of the canonical prompt, for a half of the training."""

COLORED_SHARE = 0.25
"""Share of the training prompts that name a background color."""


class TextToImage(EmojiTask):
  """Records are cells; the skin tone is drawn among the cell's."""

  name = 'text_to_image'

  def build(
    self, record: Cell, rng: np.random.Generator, augment: bool
  ) -> Example:
    """A prompt, and the drawing on the background that it names, or white."""
    emoji = pick(record.members(), rng)
    background = 'white'
    if augment and rng.random() < COLORED_SHARE:
      background = pick(tuple(BACKGROUNDS), rng)
    vary = augment and rng.random() < 0.5
    prompt = prompt_of(emoji, record.artist, background)
    if vary:
      prompt = _varied_prompt(emoji, record.artist, background, rng)
    picture = Drawing(record.artist, emoji.hex, background)
    return Example(
      prefix=(prompt,),
      target=draw(picture, self.config.image_size),
      task=self.name,
      facts={
        'picture': picture,
        'artist': record.artist,
        'concept': emoji.concept,
        'name': emoji.name,
      },
    )

  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Cell]:
    return shuffled(cells_of(self.config, self.split))


def prompt_of(emoji: Emoji, artist: str, background: str = 'white') -> str:
  """The canonical prompt, e.g. 'fox on a pink background, noto style'."""
  return f'{_subject(emoji.name, background)}, {artist} style'


def _subject(name: str, background: str) -> str:
  if background == 'white':
    return name
  article = 'an' if background[0] in 'aeiou' else 'a'
  return f'{name} on {article} {background} background'


def _varied_prompt(
  emoji: Emoji, artist: str, background: str, rng: np.random.Generator
) -> str:
  concept = pick((emoji.concept, *emoji.alternative_names), rng)
  subject = _subject(emoji.with_tone(concept), background)
  return pick(VARIANTS, rng).format(artist=artist, subject=subject)
