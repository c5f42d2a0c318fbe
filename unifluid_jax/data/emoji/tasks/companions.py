"""Emoji that fill a scene around the one in question."""

import numpy as np

from unifluid_jax.data.emoji.catalog import Emoji, load_catalog
from unifluid_jax.data.emoji.splits import EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks.emoji_task import pick


class Companions:
  """The untoned emoji of the training cells, by artist."""

  def __init__(self, config: EmojiConfig):
    """Lists them."""
    self._emojis: dict[str, list[Emoji]] = {}
    emojis = load_catalog().emojis
    for artist, base in cells_of(config, 'train'):
      self._emojis.setdefault(artist, []).append(emojis[base])

  def draw(
    self, emoji: Emoji, artist: str, count: int, rng: np.random.Generator
  ) -> list[Emoji]:
    """Draws distinct concepts by an artist, none of them `emoji`."""
    others: list[Emoji] = []
    while len(others) < count:
      other = pick(self._emojis[artist], rng)
      if other != emoji and other not in others:
        others.append(other)
    return others
