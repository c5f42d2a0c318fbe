"""The report's pictures: prompts, filling in, edits, reconstructions."""

from collections.abc import Sequence

from unifluid_jax.data.emoji.drawing import Drawing, draw, list_drawings
from unifluid_jax.evaluation.bank import emoji_of, nearest
from unifluid_jax.evaluation.editing_metrics import Edited
from unifluid_jax.evaluation.reconstruction_metrics import Reconstruction
from unifluid_jax.evaluation.report.frames import filling_in
from unifluid_jax.evaluation.report.gallery import gallery
from unifluid_jax.evaluation.report.markup import (
  card,
  cards,
  heading,
  paragraph,
  section,
  tile,
)
from unifluid_jax.evaluation.subsampling import rng_of, some
from unifluid_jax.evaluation.text_to_image_metrics import (
  Generation,
  TextToImage,
)
from unifluid_jax.inference import Model

TRAINING_PROMPTS = 24
HELD_OUT_PROMPTS = 12
COMPOSED_PROMPTS = 12
SAMPLES = 6
"""Images of a held-out prompt that are shown."""
PARALLEL_PROMPTS = 8
FILLING_IN = 3
EDITS = 18
RECONSTRUCTIONS = 12


def text_to_image_section(model: Model, result: TextToImage, seed: int) -> str:
  """Images for prompts, in all ways of decoding."""
  rng = rng_of(seed, 'report: text to image')
  order = 'raster' if model.raster else 'random'
  train = result.generations['train', '']
  heldout = result.generations['heldout', '']
  parallel = result.generations['heldout', '_parallel']
  training = list_drawings(model.experiment.emoji(), 'train')
  chosen = some(range(len(heldout.prompts.wanted)), HELD_OUT_PROMPTS, rng)
  return section(
    'Text to image',
    paragraph(
      'An image counts as right (\u2713) if the drawing that is nearest to it '
      'in pixels, among all emoji of all artists, shows the concept of its '
      'prompt.'
    ),
    gallery(
      'Training prompts',
      train.rights,
      lambda i: _image_card(train, i, 'training'),
      rng,
      TRAINING_PROMPTS,
    ),
    heading(
      f'Held-out drawings: {len(chosen)} of '
      f'{len(heldout.prompts.wanted)} prompts, drawn at random'
    ),
    paragraph(
      'The model knows the concept from other artists and the artist from '
      'other concepts; it has never seen the two together. On the left the '
      'artist\u2019s own drawing; on the right the training image that is '
      'nearest to the first sample.'
    ),
    cards(_held_out_card(heldout, i, training) for i in chosen),
    gallery(
      'Held-out drawings on backgrounds',
      result.composed.rights,
      lambda i: _image_card(result.composed, i, 'true'),
      rng,
      COMPOSED_PROMPTS,
    ),
    heading('Decoding in parallel'),
    paragraph(
      'The same prompts with one token a step and with several. Parallel '
      'decoding needs no training of its own.'
    ),
    cards(
      _parallel_card(heldout, parallel, i) for i in chosen[:PARALLEL_PROMPTS]
    ),
    heading('An image filling in'),
    paragraph(
      f'The tokens are written in {order} order. Each frame is labelled with '
      'the number of tokens written so far; cells still to be written are gray.'
    ),
    cards(_filling_in_card(model, heldout, i) for i in chosen[:FILLING_IN]),
  )


def editing_section(result: Edited, table: str, seed: int) -> str:
  """Images before and after their edits.

  Args:
    result: The edits.
    table: The shares by kind of edit, as HTML.
    seed: Of the choice.
  """
  side = result.images.shape[1]

  def show(index: int) -> str:
    edit = result.edits[index]
    tiles = [
      tile(draw(edit.source, side), 'before'),
      tile(result.images[index], 'result'),
      tile(draw(edit.target, side), 'wanted'),
    ]
    lines = (edit.instruction, _title(edit.source))
    return card(tiles, *lines, right=result.rights[index])

  rng = rng_of(seed, 'report: editing')
  return section(
    'Editing',
    paragraph(
      'Pairs of image and instruction that training left out. A result counts '
      'as right (\u2713) if it is nearer to the picture wanted than to any '
      'other drawing of these concepts on any background, flipped or not.'
    ),
    table,
    gallery('Edits', result.rights, show, rng, EDITS),
  )


def reconstruction_section(result: Reconstruction, seed: int) -> str:
  """Images before and after the VAE."""
  side = result.images.shape[1]

  def show(index: int) -> str:
    picture = result.pictures[index]
    tiles = [
      tile(draw(picture, side), 'original'),
      tile(result.images[index], 'VAE'),
    ]
    return card(tiles, _title(picture), f'{result.psnr[index]:.1f} dB')

  rng = rng_of(seed, 'report: reconstruction')
  chosen = some(range(len(result.pictures)), RECONSTRUCTIONS, rng)
  return section(
    'Reconstruction by the VAE',
    paragraph(
      'Drawings of concepts that training left out. No image that the model '
      'writes can be sharper than what the VAE keeps.'
    ),
    cards(map(show, chosen)),
  )


def _title(picture: Drawing) -> str:
  return f'{emoji_of(picture).name}, {picture.artist}'


def _image_card(generation: Generation, index: int, label: str) -> str:
  """An image beside the drawing that its prompt describes."""
  images, right = generation.pictures.images, generation.rights[index]
  prompt = index // generation.prompts.samples
  wanted = generation.prompts.wanted[prompt]
  tiles = [
    tile(images[index], 'model'),
    tile(draw(wanted, images.shape[1]), label),
  ]
  lines = [generation.prompts.texts[prompt]]
  if not right:
    lines.append(f'nearest: {_title(generation.found[index][0])}')
  return card(tiles, *lines, right=right)


def _held_out_card(
  generation: Generation, prompt: int, training: Sequence[Drawing]
) -> str:
  """Samples between the true drawing and the nearest of training."""
  images, samples = generation.pictures.images, generation.prompts.samples
  wanted = generation.prompts.wanted[prompt]
  rows = range(prompt * samples, (prompt + 1) * samples)
  side = images.shape[1]
  (neighbors,) = nearest(images[rows[:1]], training)
  tiles = [tile(draw(wanted, side), 'true')]
  tiles += [tile(images[i], right=generation.rights[i]) for i in rows[:SAMPLES]]
  tiles.append(tile(draw(neighbors[0], side), 'training'))
  right = sum(generation.rights[i] for i in rows)
  return card(
    tiles, generation.prompts.texts[prompt], f'{right} of {samples} right'
  )


def _parallel_card(
  one_by_one: Generation, parallel: Generation, prompt: int
) -> str:
  """The first sample of a prompt, decoded in both ways."""
  index = prompt * one_by_one.prompts.samples
  tiles = [
    tile(one_by_one.pictures.images[index], 'one by one'),
    tile(parallel.pictures.images[index], 'parallel'),
  ]
  return card(tiles, one_by_one.prompts.texts[prompt])


def _filling_in_card(model: Model, generation: Generation, prompt: int) -> str:
  """Draws the first sample of a prompt while it is decoded."""
  index = prompt * generation.prompts.samples
  counts, frames = filling_in(model, generation.pictures, index)
  tiles = [
    tile(frame, str(count)) for count, frame in zip(counts, frames, strict=True)
  ]
  return card(tiles, generation.prompts.texts[prompt])
