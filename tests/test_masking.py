import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from unifluid_jax import masking
from unifluid_jax.batch import Kind
from unifluid_jax.models.gemma import GLOBAL, LOCAL, Gemma
from unifluid_jax.models.unifluid import UniFluid


def picture(mask):
  return [''.join('.#'[int(see)] for see in row) for row in mask]


def test_attention_mask_is_the_docstrings_picture():
  mask = masking.attention_mask(
    jnp.array([[1, 1, 1, 1, 2, 2, 2, 0]]),
    jnp.array([[0, 0, 1, 1, 0, 1, 1, 0]]),
  )
  assert picture(mask[0]) == [
    '##......',
    '##......',
    '###.....',
    '####....',
    '....#...',
    '....##..',
    '....###.',
    '........',
  ]


def test_decoding_mask_is_the_docstrings_picture():
  mask = masking.decoding_mask(jnp.array([[False, True]]), 7, 3, 2, 3)
  assert picture(mask[0]) == ['.###...', '.####..', '.###.#.', '.###..#']


def test_orders_are_permutations_and_differ():
  order = masking.draw_order(jax.random.key(0), 3, 2, 16)
  positions = np.array(order.positions)
  assert (np.sort(positions, -1) == np.arange(16)).all()
  assert len({tuple(p) for p in positions.reshape(-1, 16)}) == 6


def test_masked_share_is_mars():
  order = masking.draw_order(jax.random.key(0), 2000, 1, 256)
  masked = 1 - np.array(order.visible) / 256
  assert masked.min() >= 0.7
  assert np.array(order.visible).min() >= 0
  # Mean and median of N(1, 0.25^2) cut to [0.7, 1].
  assert abs(masked.mean() - 0.867) < 0.005
  assert abs(np.median(masked) - 0.875) < 0.007


def test_annealing_goes_from_random_to_raster():
  share = [
    float(masking.random_share(jnp.int32(s), (10, 20))) for s in (0, 10, 15, 30)
  ]
  assert share == [1, 1, 0.5, 0]
  always = [float(masking.random_share(jnp.int32(s), (0, 0))) for s in (0, 1)]
  assert always == [0, 0]
  raster = masking.draw_order(jax.random.key(0), 4, 1, 9, 0.0)
  assert (raster.positions == jnp.arange(9)).all()
  half = masking.draw_order(jax.random.key(0), 1000, 1, 9, 0.5)
  is_raster = (half.positions == jnp.arange(9)).all(-1).mean()
  assert abs(is_raster - 0.5) < 0.05


@pytest.mark.parametrize(
  ('step', 'raster_fade', 'raster'),
  [
    (100, None, False),
    (100, (0, 0), True),
    (0, (0, 0), True),
    (100, (50, 100), True),  # to its very end, as ablation_order.py has it
    (99, (50, 100), False),  # stopped on the way
    (100, (50, 101), False),  # the end lies beyond the training
    (10, (50, 100), False),
  ],
)
def test_a_model_writes_in_the_order_that_training_ended_with(
  step, raster_fade, raster
):
  assert masking.decodes_raster(step, raster_fade) == raster


def test_image_index_numbers_the_blocks():
  index = masking.image_index(jnp.array([[5, 1, -1]]), 3, 9)
  assert index.tolist() == [[-1, 3, 4, 5, -1, 0, 1, 2, -1]]


def test_open_image_blocks_joins_each_image_alone():
  g, t = Kind.GENERATED, Kind.TEXT
  opened = masking.open_image_blocks(
    jnp.ones((1, 6), jnp.int32),
    jnp.array([[t, g, g, g, g, t]]),
    jnp.array([[1, 3]]),
  )
  assert opened.tolist() == [[1, 1, 0, 1, 0, 1]]


@pytest.mark.parametrize('window', [None, 5])
def test_gradients_flow_exactly_where_the_mask_says(letters, window):
  """Prefix and target, example and example, and a window of positions."""
  batch = tiny.batch(letters)
  config = dataclasses.replace(
    tiny.CONFIG.gemma,
    layers=1,
    pattern=(LOCAL if window else GLOBAL,),
    window=window,
  )
  gemma = Gemma(config, rngs=nnx.Rngs(0))
  mask = masking.attention_mask(batch.segment_ids, batch.mask_ar)[:1]
  positions = batch.positions[:1]
  direction = jax.random.normal(jax.random.key(1), (config.width,))

  def states(x):
    return gemma(x, positions, mask)[0][0] @ direction

  x = jax.random.normal(jax.random.key(2), (*mask.shape[:2], config.width))
  influence = np.abs(jax.jit(jax.jacrev(states))(x)[:, 0]).max(-1) > 0
  expected = np.array(mask[0])
  if window:
    expected &= np.abs(positions[0][:, None] - positions[0]) < window
  expected |= np.eye(len(expected), dtype=bool)  # by the residual path
  used = np.array(batch.segment_ids[0]) > 0
  assert len({*batch.segment_ids[0][used].tolist()}) > 1
  assert (influence[used] == expected[used]).all()


@pytest.mark.parametrize(('kept', 'queries'), [(2, 3), (1, 1), (3, 1), (1, 4)])
def test_gradients_of_a_decoding_step_flow_where_its_mask_says(kept, queries):
  """To the prefix but its padding, what is written, and what is kept."""
  config = dataclasses.replace(
    tiny.CONFIG.gemma, layers=1, pattern=(GLOBAL,), window=None
  )
  gemma = Gemma(config, rngs=nnx.Rngs(0))
  valid, written = jnp.array([[False, True]]), 3
  slots = written + kept + queries - 1
  positions = jnp.maximum(jnp.arange(slots) - 1, 0)[None]
  step = masking.decoding_mask(valid, slots, written, kept, queries)
  before = jnp.zeros((1, written, slots), bool).at[..., 1].set(True)
  direction = jax.random.normal(jax.random.key(1), (config.width,))

  def states(x):
    cache = gemma.init_cache(1, slots)
    _, cache = gemma(x[:, :written], positions[:, :written], before, cache, 0)
    rest = gemma(x[:, written:], positions[:, written:], step, cache, written)
    return rest[0][0] @ direction

  x = jax.random.normal(jax.random.key(2), (1, slots, config.width))
  influence = np.abs(jax.jit(jax.jacrev(states))(x)[:, 0]).max(-1) > 0
  assert (influence == np.array(step[0])).all()


def influences(model: UniFluid, letters, order: masking.Order) -> np.ndarray:
  """[target token j, token at grid position i]: does j's hidden state see i?

  The text-to-image example is alone in a row.
  """
  batch = jax.tree.map(
    jnp.asarray,
    tiny.pack(
      [tiny.lay_out(tiny.examples()[0], letters, tiny.LAYOUT)],
      1,
      tiny.RowCapacity(24, 0, 0, 1),
      tiny.LAYOUT,
      letters.pad_id,
    )[0],
  )

  def states(tokens):
    hidden = model.row_hidden_states(batch, tokens, order)
    targets = model.image_targets(hidden, batch, tokens, order)
    return targets.hidden[0]

  jacobian = jax.jit(jax.jacrev(states))(tiny.tokens(1, 1))[:, :, 0, 0]
  return np.abs(jacobian).max(axis=(1, 3)) > 0


@pytest.mark.parametrize('seed', [0, 1])
def test_causal_order_sees_exactly_what_is_written(letters, seed):
  order = masking.draw_order(jax.random.key(seed), 1, 1, tiny.TOKENS)
  sees = influences(tiny.make_model(), letters, order)
  positions = np.array(order.positions[0, 0])
  for j in range(tiny.TOKENS):
    expected = np.isin(np.arange(tiny.TOKENS), positions[:j])
    assert (sees[j] == expected).all(), j


def test_masked_order_sees_exactly_the_visible(letters):
  config = dataclasses.replace(tiny.CONFIG, decoding='masked')
  order = masking.draw_order(jax.random.key(0), 1, 1, tiny.TOKENS)
  order = order._replace(visible=jnp.array([[4]]))
  sees = influences(tiny.make_model(config), letters, order)
  visible = np.isin(np.arange(tiny.TOKENS), np.array(order.positions[0, 0, :4]))
  assert (sees == visible).all()
