"""Draws contact sheets of examples: images side by side, texts beneath."""

from collections.abc import Sequence

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.images import fit

CELL = 160
"""Height that images are scaled to, in pixels."""

MARGIN = 12
TEXT_SIZE = 14
LINE = TEXT_SIZE + 6


def describe(example: Example) -> str:
  """An example on one line: its texts, and <image> for each image."""
  *prefix, target = (
    part if isinstance(part, str) else '<image>'
    for part in (*example.prefix, example.target)
  )
  return f'{" | ".join(prefix)} -> {target}'


def draw_sheet(examples: Sequence[Example], columns: int = 2) -> Image:
  """Draws examples in columns, each as its images above its texts.

  The target stands behind an arrow, whether image or text.

  Args:
    examples: What to draw.
    columns: Examples side by side.

  Returns:
    RGB pixels [height, width, 3].
  """
  tiles = [_draw_tile(example) for example in examples]
  width = max(tile.width for tile in tiles)
  height = max(tile.height for tile in tiles)
  rows = -(-len(tiles) // columns)
  sheet = PillowImage.new('RGB', (width * columns, height * rows), 'white')
  for i, tile in enumerate(tiles):
    sheet.paste(tile, (i % columns * width, i // columns * height))
  return np.asarray(sheet)


def _draw_tile(example: Example) -> PillowImage.Image:
  font = ImageFont.load_default(TEXT_SIZE)
  parts = (*example.prefix, example.target)
  images = [_enlarge(part) for part in parts if not isinstance(part, str)]
  lines = [part for part in example.prefix if isinstance(part, str)]
  if isinstance(example.target, str):
    lines.append(f'-> {example.target}')
  text_width = max((int(font.getlength(line)) for line in lines), default=0)
  images_width = sum(image.width + MARGIN for image in images)
  size = (
    max(text_width + MARGIN, images_width) + MARGIN,
    CELL + LINE * len(lines) + 2 * MARGIN,
  )
  tile = PillowImage.new('RGB', size, 'white')
  canvas = ImageDraw.Draw(tile)
  left = MARGIN
  for image in images:
    tile.paste(image, (left, MARGIN))
    canvas.rectangle(
      (left - 1, MARGIN - 1, left + image.width, MARGIN + image.height),
      outline='lightgray',
    )
    left += image.width + MARGIN
  for i, line in enumerate(lines):
    canvas.text((MARGIN, MARGIN + CELL + LINE * i), line, 'black', font)
  return tile


def _enlarge(image: Image) -> PillowImage.Image:
  """The central square, CELL pixels high; small ones keep hard pixel edges."""
  square = fit(image, min(*image.shape[:2], CELL))
  return PillowImage.fromarray(square).resize(
    (CELL, CELL), PillowImage.Resampling.NEAREST
  )
