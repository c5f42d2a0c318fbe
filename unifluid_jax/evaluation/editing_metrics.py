"""Editing: is the picture that is nearest to the result the wanted one?

The pairs are those of image and exact edit that training left out; the
candidates are all images of the config's concepts, by all artists and in all
tones, on all background colors, flipped and not.
"""

import dataclasses

import numpy as np
from absl import logging
from jaxtyping import UInt8

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks import object_edits
from unifluid_jax.data.emoji.tasks.editing import Editing
from unifluid_jax.evaluation.bank import drawings_of, nearest
from unifluid_jax.evaluation.measure import Measures, share, shares
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.inference import Model


@dataclasses.dataclass(frozen=True)
class Edit:
  """An edit to evaluate.

  Attributes:
    kind: Kind of the edit, one of `object_edits.EXACT`.
    instruction: The instruction.
    source: The picture before.
    target: The picture wanted.
  """

  kind: str
  instruction: str
  source: Drawing
  target: Drawing


@dataclasses.dataclass(frozen=True)
class Edited:
  """Edits and their results.

  Attributes:
    edits: What was to be done.
    images: The results.
    rights: Whether each result is nearest to the wanted picture.
    measures: Shares of the results that are right.
  """

  edits: list[Edit]
  images: UInt8[np.ndarray, 'n S S 3']
  rights: list[bool]
  measures: Measures


def evaluate_editing(model: Model, config: EvaluationConfig) -> Edited:
  """Makes edits of training images that training left out."""
  emoji = model.experiment.emoji()
  side = emoji.image_size
  edits = _edits(emoji, config)
  logging.info('editing: %d images', len(edits))
  sources = [draw(edit.source, side) for edit in edits]
  images = model.edit(
    sources, [edit.instruction for edit in edits], seed=config.seed
  ).images
  bank = _candidates(emoji.concepts)
  found = nearest(images, bank)
  rights = [e.target in near for e, near in zip(edits, found, strict=True)]
  unchanged = [
    bool((source == draw(edit.target, side)).all())
    for source, edit in zip(sources, edits, strict=True)
  ]
  measures = {
    'edit_exact_nn': share(rights, 1 / len(bank)),
    'edit_copy_baseline': share(unchanged),
    **shares('edit_exact', [edit.kind for edit in edits], rights),
  }
  return Edited(edits, images, rights, measures)


def _edits(emoji: EmojiConfig, config: EvaluationConfig) -> list[Edit]:
  """Held-out pairs, each kind of edit as often as it occurs among them."""
  rng = rng_of(config.seed, 'edits')
  task = Editing(emoji, 'pair')
  records = [
    record
    for kind in object_edits.EXACT
    for record in object_edits.list_edits(kind, emoji, 'pair')
  ]
  edits = []
  for record in some(records, config.edits, rng):
    wording = object_edits.WORDINGS[record.kind][0]
    instruction = wording.format(**object_edits.words_of(record))
    facts = task.build(record, rng, augment=False).facts
    edits.append(
      Edit(record.kind, instruction, facts['source'], facts['target'])
    )
  return edits


def _candidates(concepts: str) -> list[Drawing]:
  return [
    drawing._replace(background=background, flipped=flipped)
    for drawing in drawings_of(concepts)
    for background in BACKGROUNDS
    for flipped in (False, True)
  ]
