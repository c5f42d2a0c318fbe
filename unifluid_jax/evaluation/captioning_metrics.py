"""Captioning: is the likeliest caption one of the references, word for word?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.data.emoji.drawing import Drawing, draw, list_drawings
from unifluid_jax.data.emoji.tasks.captioning import references_of
from unifluid_jax.evaluation.bank import emoji_of, nearest
from unifluid_jax.evaluation.measure import Measure, Measures, share
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.inference import Model


@dataclasses.dataclass(frozen=True)
class Captioned:
  """An image and its caption."""

  picture: Drawing
  caption: str

  @property
  def references(self) -> tuple[str, ...]:
    """All right captions, the canonical one first."""
    return references_of(emoji_of(self.picture), self.picture.artist)

  @property
  def right(self) -> bool:
    """Whether the caption is one of the references."""
    return self.caption in self.references


@dataclasses.dataclass(frozen=True)
class Captioning:
  """Captions, and how many of them are exact.

  Attributes:
    train: Of training images, in all tones.
    heldout: Of the images of held-out cells, in all tones.
    measures: Shares of the captions that are exact.
  """

  train: list[Captioned]
  heldout: list[Captioned]
  measures: Measures


def evaluate_captioning(model: Model, config: EvaluationConfig) -> Captioning:
  """Captions images of both splits, greedily."""
  emoji = model.experiment.emoji()
  rng = rng_of(config.seed, 'captions')
  training, held_out = (
    list_drawings(emoji, 'train'),
    list_drawings(emoji, 'cell'),
  )
  train = _caption(model, some(training, config.captions, rng), config.seed)
  heldout = _caption(model, some(held_out, config.captions, rng), config.seed)
  neighbors = _name_by_neighbour(
    [c.picture for c in heldout], training, emoji.image_size
  )
  untoned = [c for c in heldout if not emoji_of(c.picture).tone]
  names = {emoji_of(picture).name for picture in training}
  measures = {
    'caption_train_exact': _exact(train, names),
    'caption_heldout_exact': _exact(heldout, names),
    'caption_heldout_nn_baseline': _exact(neighbors, names),
  }
  if untoned:  # A small sample of the images may have none.
    measures['caption_heldout_exact_untoned'] = _exact(untoned, names)
  return Captioning(train, heldout, measures)


def _caption(
  model: Model, pictures: Sequence[Drawing], seed: int
) -> list[Captioned]:
  logging.info('captioning: %d images', len(pictures))
  side = model.experiment.data.image_size
  captions = model.caption(
    [draw(picture, side) for picture in pictures],
    seed=seed,
    sampling=dataclasses.replace(
      model.experiment.text_sampling, temperature=0.0
    ),
  )
  return [Captioned(p, c) for p, c in zip(pictures, captions, strict=True)]


def _name_by_neighbour(
  pictures: Sequence[Drawing], training: Sequence[Drawing], side: int
) -> list[Captioned]:
  """The name of the training image that is nearest to each image."""
  found = nearest(np.stack([draw(p, side) for p in pictures]), training)
  return [
    Captioned(picture, emoji_of(neighbors[0]).name)
    for picture, neighbors in zip(pictures, found, strict=True)
  ]


def _exact(captioned: Sequence[Captioned], names: set[str]) -> Measure:
  """The share that is exact; by chance, a random name of a training image."""
  hits = [len(names.intersection(c.references)) for c in captioned]
  chance = sum(hits) / len(hits) / len(names)
  return share([c.right for c in captioned], chance)
