"""Draws an image while it is decoded, token by token."""

import numpy as np
from jaxtyping import UInt8

from unifluid_jax.inference import ImageSamples, Model

FRAMES = 8
"""Frames of an image, besides the empty one."""

UNWRITTEN = 200
"""Gray level of the cells of tokens that are not written yet."""


def filling_in(
  model: Model, pictures: ImageSamples, index: int
) -> tuple[list[int], UInt8[np.ndarray, 'f S S 3']]:
  """An image after more and more of its tokens.

  Tokens that are not written yet are zero for the VAE, and gray.

  Args:
    model: Decodes tokens.
    pictures: Images and how they came about.
    index: Which image.

  Returns:
    How many tokens are written in each frame, and the frames.
  """
  tokens, order = pictures.tokens[index], pictures.positions[index]
  counts = np.unique(np.linspace(0, len(order), FRAMES + 1).round().astype(int))
  rank = np.argsort(order)
  written = rank < counts[:, None]
  images = model.decode(np.where(written[..., None], tokens, 0))
  grid = model.experiment.grid
  cell = np.ones((1, images.shape[1] // grid, images.shape[2] // grid), bool)
  shown = np.kron(written.reshape(-1, grid, grid), cell)
  frames = np.where(shown[..., None], images, UNWRITTEN).astype(np.uint8)
  return counts.tolist(), frames
