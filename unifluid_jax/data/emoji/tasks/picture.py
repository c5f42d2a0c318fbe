"""Drawings without words: () -> a drawing or a scene, to train the VAE on."""

import collections
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw, draw_augmented
from unifluid_jax.data.emoji.scenes import QUADRANTS, arrange, draw_scene
from unifluid_jax.data.emoji.splits import Cell, cells_of
from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask, pick, shuffled
from unifluid_jax.data.example import Example

SCENE_SHARE = 0.1
"""Share of scenes among the augmented pictures; of smaller, shifted drawings
too."""

WHITE_SHARE = 0.6
"""Share of augmented pictures on white."""


class PictureTask(EmojiTask):
  """Records are cells; the skin tone is drawn among the cell's."""

  name = 'picture'

  def build(
    self, record: Cell, rng: np.random.Generator, augment: bool
  ) -> Example:
    """A drawing; augmented on any background, flipped, or within a scene."""
    members = record.members()
    if not augment:
      picture = Drawing(record.artist, members[0].hex)
      return self._example(draw(picture, self.config.image_size), picture)
    white = rng.random() < WHITE_SHARE
    background = 'white' if white else pick(tuple(BACKGROUNDS), rng)
    emoji = pick(members, rng)
    picture = Drawing(
      record.artist, emoji.hex, background, bool(rng.random() < 0.5)
    )
    kind = rng.random()
    if kind < SCENE_SHARE:
      image = self._scene(record, background, rng)
    elif kind < 2 * SCENE_SHARE:
      image = draw_augmented(picture, self.config.image_size, rng)
    else:
      image = draw(picture, self.config.image_size)
    return self._example(image, picture)

  def _example(self, image: np.ndarray, picture: Drawing) -> Example:
    return Example((), image, self.name, {'picture': picture})

  def _scene(
    self, record: Cell, background: str, rng: np.random.Generator
  ) -> np.ndarray:
    artist = record.artist
    others = self._by_artist[artist]
    hexes = [record.base, *(pick(others, rng).base for _ in QUADRANTS[1:])]
    count = int(rng.integers(1, len(QUADRANTS) + 1))
    scene = arrange(
      artist,
      hexes[:count],
      rng.permutation(len(QUADRANTS)).tolist(),
      background,
      self.config.image_size,
      True,
      rng,
    )
    return draw_scene(scene, self.config.image_size)

  @functools.cached_property
  def _by_artist(self) -> Mapping[str, Sequence[Cell]]:
    cells = collections.defaultdict(list)
    for cell in self._records:
      cells[cell.artist].append(cell)
    return cells

  def _list_records(self, kinds: tuple[str, ...]) -> Sequence[Cell]:
    return shuffled(cells_of(self.config, self.split))
