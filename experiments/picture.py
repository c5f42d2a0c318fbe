"""Draws the README's picture from a run of the quickstart.

python -m experiments.picture runs/quickstart experiments/quickstart.png
"""

import sys

from PIL import Image

from unifluid_jax import inference
from unifluid_jax.data.example import Example
from unifluid_jax.data.sheet import draw_sheet

PROMPTS = (
  'fox, noto style',
  'red apple, fluent style',
  'rainbow, twemoji style',
  'bear, noto style',
  'cactus on a pink background, noto style',
  'thumbs up with dark skin tone, twemoji style',
)
SAMPLES = 4
"""Images of a prompt, side by side, one seed each."""


def main(workdir: str, out: str) -> None:
  """Draws SAMPLES images of each prompt into one PNG."""
  images = inference.load(workdir).generate(PROMPTS, samples=SAMPLES).images
  prompts = [prompt for prompt in PROMPTS for _ in range(SAMPLES)]
  sheet = draw_sheet(
    [
      Example(prefix=(prompt,), target=image)
      for prompt, image in zip(prompts, images, strict=True)
    ],
    columns=SAMPLES,
  )
  Image.fromarray(sheet).save(out)


if __name__ == '__main__':
  main(*sys.argv[1:])
