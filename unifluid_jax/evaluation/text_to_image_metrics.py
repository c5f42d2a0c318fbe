"""Text to image: does an image show the concept that its prompt names?

It does if a drawing that is nearest to it in pixels, among all drawings of a
bank, is of that concept, by any artist and in any skin tone.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from absl import logging
from jaxtyping import UInt8

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.config.sections.sampling import ImageSamplingConfig
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.data.emoji.splits import EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks.emoji_task import pick
from unifluid_jax.data.emoji.tasks.text_to_image import prompt_of
from unifluid_jax.evaluation.bank import drawings_of, emoji_of, nearest
from unifluid_jax.evaluation.kernel_distance import kernel_distances
from unifluid_jax.evaluation.measure import Measure, Measures, share
from unifluid_jax.evaluation.reconstruction_metrics import psnr_of, to_pixels
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.inference import ImageSamples, Model
from unifluid_jax.masking import parallel_steps

K = TypeVar('K')

Found = list[tuple[Drawing, ...]]
"""For each image, the drawings that are nearest to it."""


@dataclasses.dataclass(frozen=True)
class Prompts:
  """The prompts of a split.

  Attributes:
    wanted: The picture that each prompt describes.
    samples: Images of each prompt.
  """

  wanted: list[Drawing]
  samples: int

  @functools.cached_property
  def texts(self) -> list[str]:
    """The canonical prompts."""
    return [prompt_of(emoji_of(p), p.artist, p.background) for p in self.wanted]

  @functools.cached_property
  def concepts(self) -> list[str]:
    """The concept that each image should show, as its base."""
    return [_concept(p) for p in self.wanted for _ in range(self.samples)]


@dataclasses.dataclass(frozen=True)
class Generation:
  """Images for prompts, one prompt after the other.

  Attributes:
    prompts: The prompts.
    pictures: The images.
    found: The drawings of the catalog that are nearest to each image.
  """

  prompts: Prompts
  pictures: ImageSamples
  found: Found

  @functools.cached_property
  def rights(self) -> list[bool]:
    """Whether each image shows its concept."""
    return _rights(self.prompts, self.found)


@dataclasses.dataclass(frozen=True)
class TextToImage:
  """What was drawn, and how much of it shows what it should.

  Attributes:
    generations: By split, 'train' or 'heldout', and by way of decoding, '' or
      '_parallel'.
    composed: Held-out drawings on backgrounds.
    measures: Shares of the images that show their concept.
  """

  generations: Mapping[tuple[str, str], Generation]
  composed: Generation
  measures: Measures


def decodings(experiment: Experiment) -> dict[str, ImageSamplingConfig]:
  """The ways of decoding: one token a step, and several.

  Returns:
    By the suffix of the measures' names.
  """
  sampling = experiment.sampling
  steps = parallel_steps(experiment.grid**2)
  return {
    '': dataclasses.replace(sampling, steps=None),
    '_parallel': dataclasses.replace(sampling, steps=steps),
  }


def evaluate_text_to_image(
  model: Model, config: EvaluationConfig
) -> TextToImage:
  """Draws images for training prompts and for held-out cells, both ways."""
  splits = _prompts(model.experiment.emoji(), config)
  drawn = {
    (split, suffix): _generate(model, split, prompts, sampling, config.seed)
    for suffix, sampling in decodings(model.experiment).items()
    for split, prompts in splits.items()
  }
  everything = drawings_of('all')
  generations = {
    key: Generation(splits[key[0]], drawn[key], found)
    for key, found in _nearest(drawn, everything).items()
  }
  measures = {
    f't2i_{split}_nn_concept{suffix}': _measure(g.prompts, g.found, everything)
    for (split, suffix), g in generations.items()
  }
  own = drawings_of(model.experiment.data.concepts)
  sequential = {split: drawn[split, ''] for split in splits}
  for split, found in _nearest(sequential, own).items():
    name = f't2i_{split}_nn_concept_own_bank'
    measures[name] = _measure(splits[split], found, own)
    prompts, images = splits[split], drawn[split, ''].images
    wanted = np.stack([draw(p, images.shape[1]) for p in prompts.wanted])
    measures[f't2i_{split}_psnr_db'] = _mean_psnr(
      np.repeat(wanted, prompts.samples, axis=0), images
    )
    # One image of each prompt: those of one prompt are too much alike.
    decoded = to_pixels(model.reconstruct(wanted))
    name = f't2i_{split}_kid'
    sets = {name: images[:: prompts.samples], f'{name}_vae': decoded}
    measures |= kernel_distances(wanted, sets, config.seed)
  composed = _compose(model, config, everything)
  measures['t2i_composed_nn_concept'] = _measure(
    composed.prompts, composed.found, everything
  )
  return TextToImage(generations, composed, measures)


def _compose(
  model: Model, config: EvaluationConfig, bank: Sequence[Drawing]
) -> Generation:
  """Draws held-out cells on every colored background.

  Each image's nearest is looked for among all drawings on its background.
  """
  colors = [color for color in BACKGROUNDS if color != 'white']
  wanted = [
    Drawing(cell.artist, cell.base, color)
    for color in colors
    for cell in cells_of(model.experiment.emoji(), 'cell')
  ]
  rng = rng_of(config.seed, 'compositions')
  prompts = Prompts(some(wanted, config.prompts, rng), 1)
  sampling = decodings(model.experiment)['']
  drawn = _generate(model, 'composed', prompts, sampling, config.seed)
  found: Found = [()] * len(prompts.wanted)
  for color in colors:
    rows = [i for i, p in enumerate(prompts.wanted) if p.background == color]
    if rows:
      colored = [picture._replace(background=color) for picture in bank]
      for i, pictures in zip(
        rows, nearest(drawn.images[rows], colored), strict=True
      ):
        found[i] = pictures
  return Generation(prompts, drawn, found)


def _prompts(
  emoji: EmojiConfig, config: EvaluationConfig
) -> dict[str, Prompts]:
  """Every training cell, a second time in a skin tone if it has any; held-out
  cells."""
  rng = rng_of(config.seed, 'prompts')
  train, heldout = [], []
  for cell in cells_of(emoji, 'train'):
    untoned, *toned = cell.members()
    train.append(Drawing(cell.artist, untoned.hex))
    if toned:
      train.append(Drawing(cell.artist, pick(toned, rng).hex))
  for cell in cells_of(emoji, 'cell'):
    heldout.append(Drawing(cell.artist, cell.base))
  return {
    'train': Prompts(some(train, config.prompts, rng), 1),
    'heldout': Prompts(some(heldout, config.prompts, rng), config.samples),
  }


def _generate(
  model: Model,
  split: str,
  prompts: Prompts,
  sampling: ImageSamplingConfig,
  seed: int,
) -> ImageSamples:
  logging.info(
    'text to image, %s prompts: %d images in %s steps each',
    split,
    len(prompts.concepts),
    sampling.steps or model.experiment.grid**2,
  )
  return model.generate(
    prompts.texts, seed=seed, samples=prompts.samples, sampling=sampling
  )


def _nearest(
  drawn: Mapping[K, ImageSamples], bank: Sequence[Drawing]
) -> dict[K, Found]:
  """The nearest drawings of several sets of images, in one pass."""
  images = np.concatenate([pictures.images for pictures in drawn.values()])
  found = iter(nearest(images, bank))
  return {
    key: [next(found) for _ in pictures.images]
    for key, pictures in drawn.items()
  }


def _rights(prompts: Prompts, found: Found) -> list[bool]:
  return [
    concept in map(_concept, pictures)
    for concept, pictures in zip(prompts.concepts, found, strict=True)
  ]


def _measure(
  prompts: Prompts, found: Found, bank: Sequence[Drawing]
) -> Measure:
  """The share that is right; by chance, a random drawing of the bank."""
  drawings = collections.Counter(map(_concept, bank))
  chances = [drawings[concept] / len(bank) for concept in prompts.concepts]
  return share(_rights(prompts, found), sum(chances) / len(chances))


def _mean_psnr(
  wanted: UInt8[np.ndarray, 'n S S 3'], images: UInt8[np.ndarray, 'n S S 3']
) -> Measure:
  """Mean PSNR against the very drawings that the prompts describe."""
  ratios = psnr_of(wanted, images)
  return Measure(float(ratios.mean(dtype=np.float64)), len(ratios))


def _concept(picture: Drawing) -> str:
  return emoji_of(picture).base
