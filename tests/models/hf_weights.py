"""Weights of transformers' and diffusers' models, through our importer."""

import tempfile

import numpy as np

from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.pretrained import open_pretrained


def import_weights(model, part: str) -> dict[str, np.ndarray]:
  """Parameters of one part of a model that can be saved, by our names."""
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    arrays = open_pretrained(folder, (part,)).arrays
    return {
      name.removeprefix(f'{part}/'): read(array)
      for name, array in arrays.items()
    }
