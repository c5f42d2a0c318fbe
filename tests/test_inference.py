"""A model in use, apart from the samplers themselves."""

import jax
import jaxtyping
import numpy as np
import PIL.Image
import pytest

from tests.configs import tiny
from unifluid_jax import inference
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.sampling.compiled import Samples
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh
from unifluid_jax.utils import progress
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.restore import EMAWeights


@pytest.fixture
def model(letters, monkeypatch):
  """A model of 16 x 16 pixels whose captions are 'a', and three rows a part."""
  experiment = build(Experiment, tiny.get_config())
  spec = make_model_spec(experiment, letters.boi_id)
  mesh = make_mesh(MeshConfig(), jax.local_devices())
  weights = EMAWeights({}, {}, 6)
  model = inference.Model(experiment, letters, spec, weights, mesh)

  def write(sampling, tokenizer, params, prefix, keys):
    rows = len(prefix.kind)
    ids = np.full((rows, 1), letters.encode('a')[0])
    return ids, np.ones(rows, bool)

  monkeypatch.setattr(inference, '_BATCH', 3)
  monkeypatch.setattr(model._samplers, 'generate_texts', write)
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


NOT_TEXTS = ['x', b'x', None, 3, [None], [b'x'], [1.5], ['a', None], [['a']]]
NOT_IMAGES = [
  images(1) / np.float32(255),
  images(1)[..., :1],
  images(1)[0],
  np.zeros((1, 0, 16, 3), np.uint8),
  None,
  7,
  'fox.png',
  ['fox.png'],
  [None],
]
NOT_SEEDS = [-1, 2**32, 2**64, 1.0, True, None, '0', float('nan')]
NOT_SAMPLES = [0, -1, 2.0, True, None, '3', 10**9]


def check(name, call):
  """Asserts that the call names the argument, as Python users expect."""
  # Users have no shape checks, which would be raised first.
  jaxtyping.config.update('jaxtyping_disable', True)
  try:
    with pytest.raises(UserError, match=rf'\b{name}\b') as error:
      call()
  finally:
    jaxtyping.config.update('jaxtyping_disable', False)
  assert isinstance(error.value, TypeError | ValueError)


@pytest.mark.parametrize('texts', NOT_TEXTS, ids=repr)
def test_what_is_no_list_of_texts(model, texts):
  check('texts', lambda: model.generate(texts))
  check('questions', lambda: model.answer(images(1), texts))
  check('instructions', lambda: model.edit(images(1), texts))


def test_generators_are_no_lists(model):
  check('texts', lambda: model.generate(text for text in 'ab'))
  check('images', lambda: model.caption(image for image in images(2)))


@pytest.mark.parametrize('pictures', NOT_IMAGES, ids=repr)
def test_what_is_no_list_of_images(model, pictures):
  check('images', lambda: model.caption(pictures))
  check('images', lambda: model.answer(pictures, ['x']))
  check('images', lambda: model.edit(pictures, ['x']))


@pytest.mark.parametrize(
  'masks',
  [
    None,
    'mask.png',
    np.zeros((1, 16, 16)),
    [np.zeros((16, 15), bool)],
    [np.zeros((16, 16, 1), bool)],
    [],
    np.zeros((2, 16, 16), bool),
  ],
  ids=str,
)
def test_what_is_no_list_of_masks(model, masks):
  check('masks', lambda: model.paint(images(1), masks, ['a']))


@pytest.mark.parametrize('seed', NOT_SEEDS, ids=repr)
def test_what_is_no_seed(model, seed):
  check('seed', lambda: model.generate(['a'], seed=seed))
  check('seed', lambda: model.caption(images(1), seed=seed))
  check('seed', lambda: model.answer(images(1), ['a'], seed=seed))
  check('seed', lambda: model.edit(images(1), ['a'], seed=seed))


@pytest.mark.parametrize('samples', NOT_SAMPLES, ids=repr)
def test_what_is_no_number_of_samples(model, samples):
  check('samples', lambda: model.generate(['a'], samples=samples))


def test_a_sampling_of_another_task(model):
  config = model.experiment
  for wrong in (config.text_sampling, 'euler', 3, {}):
    kwargs = {'sampling': wrong}
    check('sampling', lambda kwargs=kwargs: model.generate(['a'], **kwargs))
    check(
      'sampling', lambda kwargs=kwargs: model.edit(images(1), ['a'], **kwargs)
    )
  for wrong in (config.sampling, 'greedy', 0):
    check(
      'sampling', lambda wrong=wrong: model.caption(images(1), sampling=wrong)
    )


def test_what_cannot_be_loaded(tmp_path):
  for wrong in (None, 3, b'runs'):
    check('workdir', lambda wrong=wrong: inference.load(wrong))
  for wrong in (0, -1, True, 1.0, '2', None):
    check('tensor', lambda wrong=wrong: inference.load(tmp_path, wrong))


def test_arrays_of_another_shape(model):
  tokens = (model.experiment.grid**2, model.experiment.token_dim)
  check('tokens', lambda: model.decode(np.zeros((2, 3, 4), np.float32)))
  check('tokens', lambda: model.decode(np.zeros((1, *tokens), np.int32)))
  check('images', lambda: model.reconstruct(images(1, 32)))
  check('images', lambda: model.reconstruct(images(1) / 255))


def test_images_without_texts(model):
  for read in (model.answer, model.edit):
    with pytest.raises(UserError, match='got 2 images and 1 '):
      read(images(2), ['x'])


def test_images_are_resized_once_from_the_original(model, monkeypatch):
  """Not to the model's side first, and from there to the encoder's."""
  rng = np.random.default_rng(0)
  photo = rng.integers(0, 256, (60, 90, 3), np.uint8)
  seen = []

  def write(sampling, tokenizer, params, prefix, keys):
    seen.append(prefix)
    rows = len(prefix.kind)
    return np.zeros((rows, 1), int), np.ones(rows, bool)

  monkeypatch.setattr(model._samplers, 'generate_texts', write)
  model.caption([photo])
  side = model.experiment.model.encoder.image_size
  square = photo[:, 15:75]
  expected = PIL.Image.fromarray(square).resize((side, side), PIL.Image.BICUBIC)
  # At the sides, the resampling also sees what is cut off.
  np.testing.assert_array_equal(
    seen[0].understanding_images[0, 0][:, 2:-2], np.asarray(expected)[:, 2:-2]
  )


def test_images_that_are_not_finite(model, monkeypatch):
  def write(sampling, weights, prefix, keys, canvas):
    rows = len(keys)
    finite = np.ones(rows, bool)
    finite[1] = False
    return Samples(
      images(rows),
      np.zeros((rows, 4, 16), np.float32),
      np.zeros((rows, 4), int),
      finite,
    )

  monkeypatch.setattr(model._samplers, 'generate_images', write)
  with pytest.raises(UserError, match='sample 1 of prompt 0 .* guidance') as e:
    model.generate(['a'], samples=3)
  assert 'temperature' in str(e.value)


def test_texts_whose_logits_are_not_finite(model, monkeypatch):
  monkeypatch.setattr(
    model._samplers,
    'generate_texts',
    lambda *args: (np.zeros((3, 1), int), np.array([True, True, False])),
  )
  with pytest.raises(UserError, match='text 2 has logits that are not finite'):
    model.caption(images(3))


def test_nothing_gives_nothing(model):
  experiment = model.experiment
  tokens, size = experiment.grid**2, experiment.token_dim
  for drawn in (
    model.generate([]),
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

  def write(sampling, params, prefix, keys, canvas):
    seen.append(sampling)
    rows = len(keys)
    tokens = np.zeros((rows, 4, 16), np.float32)
    positions = np.zeros((rows, 4), np.int32)
    return Samples(images(rows), tokens, positions, np.ones(rows, bool))

  monkeypatch.setattr(model._samplers, 'generate_images', write)
  model.generate(['a'])
  model.edit(images(1), ['a'])
  model.edit(images(1), ['a'], sampling=model.experiment.sampling)
  drawn, edited, told = seen
  assert drawn == told == model.experiment.sampling
  assert edited == model.experiment.editing != drawn
