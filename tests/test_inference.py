"""A model in use, apart from the samplers themselves."""

import jax
import numpy as np
import pytest
from flax import nnx

from tests.configs import tiny
from unifluid_jax import inference, progress
from unifluid_jax.config import build
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment
from unifluid_jax.runs.state import make_unifluid
from unifluid_jax.training.sharding import MeshConfig, make_mesh


@pytest.fixture
def model(letters, monkeypatch):
  """A model of 16 x 16 pixels whose captions are 'a', and three rows a part."""
  experiment = build(Experiment, tiny.get_config())
  unifluid = nnx.eval_shape(lambda: make_unifluid(experiment, letters))
  mesh = make_mesh(MeshConfig(), jax.local_devices())
  model = inference.Model(
    experiment, letters, nnx.graphdef(unifluid), {}, {}, 6, mesh
  )

  def write(sampling, params, prefix, keys):
    return np.full((len(prefix.kind), 1), letters.encode('a')[0])

  monkeypatch.setattr(inference, '_BATCH', 3)
  monkeypatch.setattr(model._programs, 'write_texts', write)
  return model


def images(count: int, side: int = 16) -> np.ndarray:
  return np.zeros((count, side, side, 3), np.uint8)


def test_progress_of_a_long_list_is_told(model, monkeypatch):
  told = []
  monkeypatch.setattr(progress, '_SECONDS', 0)
  monkeypatch.setattr(
    progress.logging, 'info', lambda text, *values: told.append(text % values)
  )
  assert model.caption(images(7)) == ['a'] * 7
  # How long the rest takes is the machine's affair.
  assert [text.rpartition('  ETA ')[0] for text in told] == [
    '7 texts, part 1/3',
    '7 texts, part 2/3',
  ]


@pytest.mark.parametrize(
  ('pictures', 'shape'),
  [
    (images(1, 32), '(32, 32, 3) and type uint8'),
    (images(1) / np.float32(255), '(16, 16, 3) and type float32'),
    (images(1)[..., :1], '(16, 16, 1) and type uint8'),
    (images(1)[0], '(16, 3) and type uint8'),
  ],
)
def test_an_image_of_another_shape(model, pictures, shape):
  texts = ['x'] * len(pictures)
  for read in (
    lambda: model.caption(pictures),
    lambda: model.answer(pictures, texts),
    lambda: model.edit(pictures, texts),
  ):
    with pytest.raises(UserError) as error:
      read()
    assert str(error.value).startswith(
      f'image 0 has shape {shape}; the model reads images of shape (16, 16, 3)'
    )


def test_images_without_texts(model):
  for read in (model.answer, model.edit):
    with pytest.raises(UserError, match='there are 2 images and 1 texts'):
      read(images(2), ['x'])


def test_nothing_gives_nothing(model):
  experiment = model.experiment
  tokens, size = experiment.grid**2, experiment.token_dim
  for drawn in (
    model.generate([]),
    model.generate(['a'], samples=0),
    model.edit([], []),
    model.edit(images(0), []),
  ):
    assert (drawn.images.shape, drawn.images.dtype) == ((0, 16, 16, 3), 'uint8')
    assert drawn.tokens.shape == (0, tokens, size)
    assert drawn.tokens.dtype == 'float32'
    assert (drawn.positions.shape, drawn.positions.dtype) == (
      (0, tokens),
      'int32',
    )
  assert model.caption([]) == model.caption(images(0)) == []
  assert model.answer([], []) == []
  decoded = model.decode(np.zeros((0, tokens, size), np.float32))
  assert (decoded.shape, decoded.dtype) == ((0, 16, 16, 3), 'uint8')
  again = model.reconstruct(images(0))
  assert (again.shape, again.dtype) == ((0, 16, 16, 3), 'float32')


def test_edits_are_sampled_in_their_own_way(model, monkeypatch):
  seen = []

  def write(sampling, params, prefix, keys):
    seen.append(sampling)
    tokens = np.zeros((len(keys), 4, 16), np.float32)
    return images(len(keys)), tokens, np.zeros((len(keys), 4), np.int32)

  monkeypatch.setattr(model._programs, 'write_images', write)
  model.generate(['a'])
  model.edit(images(1), ['a'])
  model.edit(images(1), ['a'], sampling=model.experiment.sampling)
  drawn, edited, told = seen
  assert drawn == told == model.experiment.sampling
  assert edited == model.experiment.edit_sampling != drawn


def test_a_text_that_is_not_in_a_list(model):
  for read in (
    lambda: model.generate('x'),
    lambda: model.answer(images(1), 'x'),
    lambda: model.edit(images(1), 'x'),
  ):
    with pytest.raises(UserError, match=r"'x' is no list of texts"):
      read()
