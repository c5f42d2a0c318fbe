"""Editing: (image, 'edit {instruction}') -> the edited image."""

from collections.abc import Sequence

import numpy as np

from unifluid_jax.data import prompts
from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.data.emoji.scenes import Scene, draw_scene
from unifluid_jax.data.emoji.splits import EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks import object_edits, scene_edits
from unifluid_jax.data.emoji.tasks.companions import Companions
from unifluid_jax.data.emoji.tasks.emoji_task import (
  EmojiTask,
  Interleaved,
  pick,
)
from unifluid_jax.data.emoji.tasks.object_edits import ObjectEdit
from unifluid_jax.data.emoji.tasks.scene_edits import SceneEdit
from unifluid_jax.data.example import Example

WORDINGS = object_edits.WORDINGS | scene_edits.WORDINGS
EXACT = (*object_edits.EXACT, *scene_edits.WORDINGS)


class Editing(EmojiTask):
  """Edits of single emoji and of scenes, each kind equally often.

  The split 'pair' has the exact edits of single emoji whose pair of image and
  instruction training leaves out.
  """

  name = 'editing'
  kinds = (*WORDINGS,)
  splits = ('train', 'cell', 'concept', 'pair')

  def __init__(
    self, config: EmojiConfig, split: str, kinds: Sequence[str] = ()
  ):
    super().__init__(config, split, kinds)
    self._companions = Companions(config)

  def build(
    self,
    record: ObjectEdit | SceneEdit,
    rng: np.random.Generator,
    augment: bool,
  ) -> Example:
    """An image, an instruction and the edited image."""
    side = self.config.image_size
    source: Drawing | Scene
    target: Drawing | Scene
    if isinstance(record, ObjectEdit):
      words = object_edits.words_of(record)
      source, target = _choose_backgrounds(record, rng, augment)
      images = draw(source, side), draw(target, side)
    else:
      source, target, words = self._make_scenes(record, rng, augment)
      images = draw_scene(source, side), draw_scene(target, side)
    wordings = WORDINGS[record.kind]
    wording = pick(wordings, rng) if augment else wordings[0]
    instruction = wording.format(**words)
    return Example(
      prefix=(images[0], prompts.EDIT.format(instruction=instruction)),
      target=images[1],
      task=self.name,
      facts={
        'edit': record.kind,
        'exact': record.kind in EXACT,
        'source': source,
        'target': target,
      },
    )

  def _list_records(
    self, kinds: tuple[str, ...]
  ) -> Sequence[ObjectEdit | SceneEdit]:
    lists: dict[str, Sequence[ObjectEdit | SceneEdit]] = {
      kind: object_edits.list_edits(kind, self.config, self.split)
      for kind in object_edits.WORDINGS
      if kind in kinds
    }
    if self.split != 'pair':
      cells = cells_of(self.config, self.split)
      for kind in (k for k in scene_edits.WORDINGS if k in kinds):
        lists[kind] = [SceneEdit(kind, cell) for cell in cells]
    return Interleaved(lists)

  def _make_scenes(
    self, record: SceneEdit, rng: np.random.Generator, augment: bool
  ) -> tuple[Scene, Scene, dict[str, str]]:
    """Source, target, and the instruction's words."""
    kind, cell = record
    emoji = load_catalog().emojis[cell.base]
    others = self._companions.draw(emoji, cell.artist, 4, rng)
    background = pick(tuple(BACKGROUNDS), rng) if augment else 'white'
    side = self.config.image_size
    return scene_edits.make_scenes(
      kind, emoji, cell.artist, background, others, side, rng
    )


def _choose_backgrounds(
  edit: ObjectEdit, rng: np.random.Generator, augment: bool
) -> tuple[Drawing, Drawing]:
  """Source and target, both on white, or often on a color when augmented."""
  kind, source, target = edit
  if kind == 'background':
    others = [name for name in BACKGROUNDS if name != target.background]
    return source._replace(background=pick(others, rng)), target
  background = 'white'
  if augment and rng.integers(2):
    background = pick(tuple(BACKGROUNDS), rng)
  return (
    source._replace(background=background),
    target._replace(background=background),
  )
