"""The cached decoder against one that forwards whole rows for every token."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from unifluid_jax import masking
from unifluid_jax.config.sections.sampling import ImageSamplingConfig
from unifluid_jax.data.example import Example
from unifluid_jax.data.packing import prefix_batch
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.diffusion.objectives import Flow
from unifluid_jax.diffusion.solvers import Euler
from unifluid_jax.models.unifluid import sources_of_targets
from unifluid_jax.sampling import image_decoding
from unifluid_jax.sampling.canvas import KnownTokens, kept_first, kept_tokens
from unifluid_jax.sampling.seeds import sample_keys
from unifluid_jax.utils.errors import UserError

SOLVER = Euler(Flow(), 2)
PREFIXES = (
  Example(('a cat on a mat',), ''),
  Example((tiny.image(1), 'edit: flip'), ''),
  Example(('a',), ''),
)
NOTHING = Example((), '')


@functools.cache
def model(order):
  return tiny.make_model(dataclasses.replace(tiny.CONFIG, decoding=order))


def write(
  order, letters, counts, guidance, prefixes=PREFIXES, keys=None, known=None
):
  """Runs the sampler on prefixes with their guidance branch."""
  rows = [*prefixes]
  if guidance.scale != 1:
    rows += [NOTHING] * len(prefixes)
  prefix = prefix_batch(rows, letters, tiny.LAYOUT, generates_image=True)
  sources = sources_of(prefix)
  if keys is None:
    keys = sample_keys(0, range(len(prefixes)), [0] * len(prefixes))
  positions = image_decoding.draw_positions(keys, tiny.TOKENS, raster=False)
  if known is not None:
    positions = kept_first(positions, known.kept)
  unifluid = model(order)
  run = jax.jit(
    lambda prefix: image_decoding.decode_images(
      unifluid,
      SOLVER,
      guidance,
      1.0,
      counts,
      prefix,
      keys,
      positions,
      sources,
      known,
    )
  )
  return run(jax.tree.map(jnp.asarray, prefix)), positions, keys


def sources_of(batch):
  """Tokens for the sources, which stand in for the VAE's."""
  rows, count = batch.source_slots.shape
  return jnp.tile(tiny.tokens(1, 1), (rows, 1, 1, 1)) if count else None


@functools.partial(jax.jit, static_argnames='order_name')
def whole_row_states(row, tokens, order, order_name):
  """Hidden states of the image slots of one packed row."""
  unifluid = model(order_name)
  sources = sources_of_targets(row, sources_of(row))
  hidden = unifluid.row_hidden_states(row, tokens, order, sources)
  start = row.generated_slots[0, 0]
  states = jax.lax.dynamic_slice_in_dim(hidden[0], start, tiny.TOKENS)
  return states, sources[0, 0]


@functools.partial(jax.jit, static_argnames=('order_name', 'guidance'))
def draw_token(hidden, sources, key, fraction, order_name, guidance):
  """One token from the hidden states with and without the prompt."""
  head = model(order_name).head
  condition = head.embed_condition(hidden, sources)

  def predict(x, time):
    return head(x, time, jax.tree.map(lambda c: c[: x.shape[0]], condition))

  guided = predict
  if guidance.scale != 1:
    guided = guidance.guide(predict, fraction)
  return SOLVER.sample(guided, key[None], tiny.IMAGE_TOKENS.dim)[0]


def reference(
  order_name, letters, counts, guidance, example, key, positions, given=()
):
  """Writes one image without a cache, token by token."""
  model(order_name)  # before anything is traced
  rows = []
  for prefix in (example, NOTHING):
    whole = dataclasses.replace(prefix, target=tiny.image(0))
    slots = tiny.lay_out(whole, letters, tiny.LAYOUT)
    row = tiny.RowCapacity(48, 0, 1, 1, 1)
    packed, _ = tiny.pack([slots], 1, row, tiny.LAYOUT, letters.pad_id)
    rows.append(jax.tree.map(jnp.asarray, packed))
  raster = np.zeros((tiny.TOKENS, tiny.IMAGE_TOKENS.dim), np.float32)
  first = 0
  for count in counts:
    drawn = []
    for j in range(first, first + count):
      asked = np.array(positions)
      asked[[first, j]] = asked[[j, first]]
      order = masking.Order(
        jnp.asarray(asked)[None, None], jnp.array([[first]])
      )
      slot = positions[j] if order_name == 'masked' else first
      known = jnp.asarray(raster)[None, None]
      states = [whole_row_states(row, known, order, order_name) for row in rows]
      drawn.append(
        draw_token(
          jnp.stack([hidden[slot] for hidden, _ in states]),
          jnp.stack([sources[positions[j]] for _, sources in states]),
          jax.random.fold_in(key, j),
          (first + count) / tiny.TOKENS,
          order_name,
          guidance,
        )
      )
    for j, token in zip(range(first, first + count), drawn, strict=True):
      raster[positions[j]] = dict(given).get(int(positions[j]), token)
    first += count
  return raster


@pytest.mark.parametrize('order', ['causal', 'masked'])
@pytest.mark.parametrize(
  ('counts', 'guidance'),
  [
    ((1,) * 9, Guidance()),
    ((1, 2, 2, 4), Guidance(3.0, 'linear')),
    ((3, 1, 1, 1, 3), Guidance(2.0)),
    ((9,), Guidance()),
  ],
)
def test_cached_decoding_equals_uncached(letters, order, counts, guidance):
  written, positions, keys = write(order, letters, counts, guidance)
  for i, example in enumerate(PREFIXES[:2]):
    expected = reference(
      order, letters, counts, guidance, example, keys[i], np.array(positions[i])
    )
    np.testing.assert_allclose(written.tokens[i], expected, atol=2e-5)


@pytest.mark.parametrize('order', ['causal', 'masked'])
@pytest.mark.parametrize('counts', [(1,) * 9, (1, 2, 2, 4)])
def test_known_tokens_are_kept_and_the_rest_follows_them(
  letters, order, counts
):
  rng = np.random.default_rng(0)
  kept = np.zeros((3, tiny.TOKENS), bool)
  kept[0, [1, 4, 8]], kept[1, 2:8] = True, True
  given = rng.normal(size=(*kept.shape, tiny.IMAGE_TOKENS.dim))
  known = KnownTokens(jnp.asarray(given, jnp.float32), jnp.asarray(kept))
  guidance = Guidance(2.0)
  written, positions, keys = write(
    order, letters, counts, guidance, known=known
  )
  for i, example in enumerate(PREFIXES[:2]):
    tokens = {int(j): known.tokens[i, j] for j in np.flatnonzero(kept[i])}
    assert set(np.array(positions[i])[: len(tokens)].tolist()) == {*tokens}
    for j, token in tokens.items():
      np.testing.assert_array_equal(written.tokens[i, j], token)
    expected = reference(
      order,
      letters,
      counts,
      guidance,
      example,
      keys[i],
      np.array(positions[i]),
      tokens.items(),
    )
    np.testing.assert_allclose(written.tokens[i], expected, atol=3e-5)
  # Without known tokens a row is what it is without the others' tokens.
  drawn, _, _ = write(order, letters, counts, guidance)
  np.testing.assert_allclose(written.tokens[2], drawn.tokens[2], atol=1e-5)


def test_a_token_is_kept_if_none_of_its_pixels_is_redrawn():
  redraw = np.zeros((2, 6, 6), bool)
  redraw[0, 3, 5] = True  # one pixel of the token in the middle row, last
  redraw[1, :, :2] = True
  assert kept_tokens(jnp.asarray(redraw), 3).tolist() == [
    [True, True, True, True, True, False, True, True, True],
    [False, True, True, False, True, True, False, True, True],
  ]


def test_kept_tokens_come_first_and_the_order_stays_otherwise():
  positions = jnp.array([[3, 0, 2, 1], [1, 2, 3, 0]])
  kept = jnp.array([[False, False, True, True], [False] * 4])
  expected = [[3, 2, 0, 1], [1, 2, 3, 0]]
  assert kept_first(positions, kept).tolist() == expected


@pytest.mark.parametrize('i', range(3))
def test_an_image_does_not_depend_on_its_batch(letters, i):
  """Nor on whether another one has a source."""
  counts, guidance = (1, 2, 2, 4), Guidance(3.0)
  together, _, keys = write('causal', letters, counts, guidance)
  alone, _, _ = write(
    'causal', letters, counts, guidance, PREFIXES[i : i + 1], keys[i : i + 1]
  )
  np.testing.assert_allclose(together.tokens[i], alone.tokens[0], atol=1e-5)


@pytest.mark.parametrize(
  ('tokens', 'steps'), [(256, 64), (256, 256), (16, 5), (9, 1), (16, 15)]
)
def test_tokens_per_step(tokens, steps):
  counts = masking.tokens_per_step(tokens, steps)
  assert sum(counts) == tokens
  assert len(counts) == steps
  assert min(counts) >= 1
  assert list(counts) == sorted(counts)


def test_tokens_per_step_are_mars():
  counts = masking.tokens_per_step(256, 64)
  assert counts[:12] == (1,) * 12
  assert max(counts) in (6, 7)
  assert max(masking.tokens_per_step(256, 32)) == 13
  assert max(masking.tokens_per_step(256, 16)) == 25
  assert masking.tokens_per_step(256, None) == (1,) * 256


def test_more_steps_than_tokens_is_refused():
  with pytest.raises(UserError, match='17 decoding steps'):
    masking.tokens_per_step(16, 17)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_impossible_settings_are_refused(value):
  with pytest.raises(UserError, match=f'temperature {value}'):
    ImageSamplingConfig(temperature=value)
  with pytest.raises(UserError, match=f'guidance scale {value}'):
    ImageSamplingConfig(guidance=Guidance(value))
