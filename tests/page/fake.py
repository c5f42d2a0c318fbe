"""A model that draws at once, or never."""

import sys
import threading
import types

import numpy as np

from unifluid_jax.inference import ImageSamples

SIZE = 8


class FakeModel:
  """Stands in for `inference.Model`; what it reads, it keeps in `seen`.

  The prompt 'wait' waits for `go`.
  """

  def __init__(self):
    data = types.SimpleNamespace(image_size=SIZE, max_pixels=1000)
    encoder = types.SimpleNamespace(image_size=SIZE)
    model = types.SimpleNamespace(encoder=encoder)
    self.experiment = types.SimpleNamespace(data=data, model=model)
    self.seen = []
    self.busy, self.go = threading.Event(), threading.Event()

  def generate(self, texts, *, samples, seed):
    self.seen.append((texts, samples, seed))
    if texts == ['wait']:
      self.busy.set()
      self.go.wait()
    images = np.full((samples, SIZE, SIZE, 3), seed % 256, np.uint8)
    return self._pictures(images)

  def edit(self, images, instructions, *, seed):
    self.seen.append((images, instructions, seed))
    return self._pictures(np.stack(images))

  def caption(self, images):
    self.seen.append((images,))
    return [f'mean {np.mean(images[0]):.0f}']

  def answer(self, images, questions):
    self.seen.append((images, questions))
    return [f'{questions[0]} {np.mean(images[0]):.0f}']

  def _pictures(self, images):
    count = len(images)
    tokens, positions = np.zeros((count, 1, 1)), np.zeros((count, 1), int)
    return ImageSamples(images, tokens, positions)


if __name__ == '__main__':  # a page of its own process, at the port given
  import gradio

  from unifluid_jax import demo
  from unifluid_jax.cli import entry_point

  port = int(sys.argv.pop())
  entry_point.run(lambda: demo.serve(FakeModel(), gradio, '127.0.0.1', port))
