"""Makes captioned pictures, as a user brings them from another program:

  python -m tests.pictures FOLDER [COUNT]

draws COUNT (250) PNG files of a colored shape on a background, such as
`a_small_red_star_on_blue_stripes-017.png`. Each has a caption of its own, which
the name spells. The same arguments give the same files.
"""

import itertools
import math
import pathlib
import random
import sys

import PIL.Image
import PIL.ImageDraw

SIDE = 96
"""Side of a picture in pixels, which training reduces."""

_SCALE = 4
"""Shapes are drawn at this many times the side, then reduced."""

COLORS = {
  'red': (214, 40, 40),
  'orange': (247, 140, 30),
  'yellow': (250, 210, 50),
  'green': (50, 160, 70),
  'blue': (40, 90, 200),
  'purple': (130, 60, 170),
  'brown': (120, 75, 40),
  'black': (25, 25, 25),
}
GROUNDS = {
  'white': (250, 250, 250),
  'pink': (250, 190, 210),
  'gray': (150, 155, 160),
  'light blue': (170, 215, 245),
}
PATTERNS = ('paper', 'stripes', 'dots')
SIZES = {'small': 0.24, 'large': 0.4}

Point = tuple[float, float]


def _ring(corners: int, radii: tuple[float, ...], turn: float) -> list[Point]:
  """Corners around the middle, at these distances in turn."""
  return [
    (radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a))
    for i in range(corners)
    for a in [turn + 2 * math.pi * i / corners]
  ]


SHAPES = {
  'circle': _ring(60, (1.0,), 0.0),
  'square': _ring(4, (1.1,), math.pi / 4),
  'diamond': _ring(4, (1.1,), 0.0),
  'triangle': _ring(3, (1.15,), 0.0),
  'hexagon': _ring(6, (1.05,), 0.0),
  'star': _ring(10, (1.2, 0.5), 0.0),
  'cross': [
    (-0.35, -1),
    (0.35, -1),
    (0.35, -0.35),
    (1, -0.35),
    (1, 0.35),
    (0.35, 0.35),
    (0.35, 1),
    (-0.35, 1),
    (-0.35, 0.35),
    (-1, 0.35),
    (-1, -0.35),
    (-0.35, -0.35),
  ],
  'arrow': [
    (-1, -0.3),
    (0.1, -0.3),
    (0.1, -0.9),
    (1.1, 0),
    (0.1, 0.9),
    (0.1, 0.3),
    (-1, 0.3),
  ],
}


def make(folder: pathlib.Path, count: int = 250) -> dict[str, str]:
  """Draws pictures.

  Args:
    folder: Where the files go; it is made.
    count: Number of pictures, each with a caption of its own.

  Returns:
    The caption of each file, by name.
  """
  folder.mkdir(parents=True, exist_ok=True)
  every = itertools.product(SIZES, COLORS, SHAPES, GROUNDS, PATTERNS)
  chosen = random.Random(0).sample([*every], count)
  captions = {}
  for number, (size, color, shape, ground, pattern) in enumerate(chosen):
    caption = f'a {size} {color} {shape} on {ground} {pattern}'
    name = f'{caption.replace(" ", "_")}-{number:03d}.png'
    picture = _draw(size, color, shape, ground, pattern)
    picture.save(folder / name)
    captions[name] = caption
  return captions


def _draw(size, color, shape, ground, pattern) -> PIL.Image.Image:
  side = SIDE * _SCALE
  picture = PIL.Image.new('RGB', (side, side), GROUNDS[ground])
  canvas = PIL.ImageDraw.Draw(picture)
  darker = tuple(value * 4 // 5 for value in GROUNDS[ground])
  step = side // 6
  if pattern == 'stripes':
    for left in range(0, side, step):
      canvas.rectangle((left, 0, left + step // 2 - 1, side), darker)
  elif pattern == 'dots':
    for x, y in itertools.product(range(step // 2, side, step), repeat=2):
      reach = step // 4
      canvas.ellipse((x - reach, y - reach, x + reach, y + reach), darker)
  radius, middle = SIZES[size] * side, side / 2
  points = [
    (middle + radius * x, middle + radius * y) for x, y in SHAPES[shape]
  ]
  canvas.polygon(points, COLORS[color])
  return picture.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)


if __name__ == '__main__':
  make(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
