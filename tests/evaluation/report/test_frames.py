"""Frames of an image that fills in."""

import numpy as np

from tests.evaluation import fakes
from unifluid_jax.evaluation.report.frames import UNWRITTEN, filling_in


def test_frames_show_the_tokens_in_the_order_they_were_written(experiment):
  seen = []

  class Recorder(fakes.FakeModel):
    def decode(self, tokens):
      seen.append(tokens)
      return super().decode(tokens)

  model = Recorder(experiment)
  pictures = model.generate(['a', 'b'], samples=1)
  counts, frames = filling_in(model, pictures, 1)
  grid = experiment.grid
  cell = experiment.data.image_size // grid
  assert (counts[0], counts[-1]) == (0, grid**2)
  assert counts == sorted(set(counts))
  (tokens,) = seen
  for count, frame, masked in zip(counts, frames, tokens, strict=True):
    written = set(pictures.positions[1][:count].tolist())
    for position in range(grid**2):
      row, column = divmod(position, grid)
      area = frame[row * cell :, column * cell :][:cell, :cell]
      assert (area == (7 if position in written else UNWRITTEN)).all()
      assert (masked[position] == (position in written)).all()
  assert frames.shape == (len(counts), 16, 16, 3)
  assert frames.dtype == np.uint8
