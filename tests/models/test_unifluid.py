"""How rows are put together, and what a packed row computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from unifluid_jax import masking
from unifluid_jax.data.example import Example
from unifluid_jax.models.latents import from_tokens, to_tokens
from unifluid_jax.models.unifluid import sources_of_targets

EXAMPLES = tiny.examples()


@functools.cache
def model(order='causal'):
  return tiny.make_model(dataclasses.replace(tiny.CONFIG, decoding=order))


def forward(unifluid, batch, tokens, order, sources=None):
  """Hidden states of the rows, and the image targets."""

  @jax.jit
  def run(batch, tokens, order, sources):
    written = None if sources is None else sources_of_targets(batch, sources)
    hidden = unifluid.row_hidden_states(batch, tokens, order, written)
    targets = unifluid.image_targets(hidden, batch, tokens, order, written)
    return hidden, targets

  return run(batch, tokens, order, sources)


def pack(letters, examples, rows, length=96):
  slots = [tiny.lay_out(e, letters, tiny.LAYOUT) for e in examples]
  row = tiny.RowCapacity(length, 32, 3, 3, 1)
  packed, dropped = tiny.pack(slots, rows, row, tiny.LAYOUT, letters.pad_id)
  assert not dropped
  return jax.tree.map(jnp.asarray, packed)


@pytest.mark.parametrize('order_name', ['causal', 'masked'])
def test_a_packed_example_computes_what_it_does_alone(letters, order_name):
  unifluid = model(order_name)
  together = pack(letters, EXAMPLES, 1)
  tokens = tiny.tokens(1, 3)
  order = masking.draw_order(jax.random.key(1), 1, 3, tiny.TOKENS)
  sources = tokens[:, 2:]
  hidden, _ = forward(unifluid, together, tokens, order, sources)
  segments = np.array(together.segment_ids[0])
  images = iter(range(3))
  # The row holds the longest example first.
  lengths = [len(tiny.lay_out(e, letters, tiny.LAYOUT).kind) for e in EXAMPLES]
  for segment, i in enumerate(np.argsort(lengths, kind='stable')[::-1], 1):
    example = EXAMPLES[i]
    alone = pack(letters, [example], 1)
    image = 0 if isinstance(example.target, str) else next(images)
    pick = jnp.array([image, 0, 0])
    expected, _ = forward(
      unifluid,
      alone,
      tokens[:, pick],
      masking.Order(order.positions[:, pick], order.visible[:, pick]),
      sources,
    )
    count = lengths[i]
    assert (segments == segment).sum() == count
    np.testing.assert_allclose(
      hidden[0][segments == segment], expected[0, :count], atol=2e-5
    )


def test_identity_order_is_raster(letters):
  """Slot j is told token j - 1 and asked for position j, without shuffling."""
  unifluid = model()
  batch = pack(letters, EXAMPLES[:1], 1)
  tokens = jnp.tile(tiny.tokens(1, 1), (1, 3, 1, 1))
  raster = masking.draw_order(jax.random.key(0), 1, 3, tiny.TOKENS, 0.0)
  x = jax.jit(unifluid.embed_row)(batch, tokens, raster)
  start = int(batch.generated_slots[0, 0])
  known, target = (
    np.array(unifluid.known_positions[...]),
    np.array(unifluid.target_positions[...]),
  )
  for j in range(tiny.TOKENS):
    if j == 0:
      told = unifluid.embed_boi()
    else:
      token = tokens[0, 0, j - 1] @ unifluid.token_in[...]
      told = unifluid.token_norm(token) + known[j - 1]
    np.testing.assert_allclose(x[0, start + j], told + target[j], atol=1e-5)


def test_targets_pair_each_slot_with_its_token(letters):
  unifluid = model()
  batch = pack(letters, EXAMPLES, 2)
  tokens = tiny.tokens(2, 3)
  order = masking.draw_order(jax.random.key(1), 2, 3, tiny.TOKENS)
  hidden, targets = forward(unifluid, batch, tokens, order)
  for row, image in np.ndindex(2, 3):
    start = int(batch.generated_slots[row, image])
    for j in range(tiny.TOKENS):
      k = image * tiny.TOKENS + j
      assert targets.weights[row, k] == (start >= 0)
      position = order.positions[row, image, j]
      assert (targets.tokens[row, k] == tokens[row, image, position]).all()
      if start >= 0:
        assert (targets.hidden[row, k] == hidden[row, start + j]).all()


def test_pixels_of_the_prefix_reach_the_answer_and_nothing_else(letters):
  unifluid = model()
  batch = pack(letters, [EXAMPLES[1], EXAMPLES[3]], 1)
  tokens = tiny.tokens(1, 3)
  order = masking.draw_order(jax.random.key(1), 1, 3, tiny.TOKENS)

  def logits(batch):
    hidden, _ = forward(unifluid, batch, tokens, order)
    return unifluid.text_logits(hidden, batch.text_slots)[0]

  before = logits(batch)
  darker = batch.understanding_images.at[0, 0].set(0)
  changed = jnp.abs(
    logits(batch._replace(understanding_images=darker)) - before
  )
  first = np.array(batch.text_slots[0]) < (batch.segment_ids[0] == 1).sum()
  valid = np.array(batch.text_weights[0]) > 0
  assert (changed.max(-1)[valid & first] > 1e-6).all()
  assert (changed.max(-1)[valid & ~first] == 0).all()


@pytest.mark.parametrize('order_name', ['causal', 'masked'])
def test_a_slot_is_told_the_source_token_of_its_target(letters, order_name):
  """Only in the image that is edited, and there at the place it writes."""
  unifluid = model(order_name)
  batch = pack(letters, EXAMPLES, 1)
  order = masking.draw_order(jax.random.key(1), 1, 3, tiny.TOKENS)
  tokens, sources = tiny.tokens(1, 3), tiny.tokens(1, 1)
  written = sources_of_targets(batch, sources)
  embed = jax.jit(unifluid.embed_row)
  told = embed(batch, tokens, order, written) - embed(batch, tokens, order)
  start = int(batch.source_slots[0, 0])
  image = batch.generated_slots[0].tolist().index(start)
  targets = np.array(order.positions[0, image])
  if order_name == 'masked':
    targets = np.arange(tiny.TOKENS)
  expected = np.zeros(told.shape[1:], np.float32)
  expected[start : start + tiny.TOKENS] = (
    sources[0, 0][targets] @ unifluid.source_in[...]
  )
  np.testing.assert_allclose(told[0], expected, atol=1e-5)
  _, pairs = forward(unifluid, batch, tokens, order, sources)
  given = np.zeros((3, tiny.TOKENS, sources.shape[-1]), np.float32)
  given[image] = sources[0, 0][targets]
  np.testing.assert_array_equal(pairs.sources[0], given.reshape(-1, 6))


def test_each_edit_has_its_own_source(letters):
  """Of a row with a longer prompt without one before two edits."""
  examples = [
    Example(('a cat on a mat beside',), tiny.image(10)),
    Example((tiny.image(1), 'edit: flip'), tiny.image(11)),
    Example((tiny.image(2), 'edit: dark'), tiny.image(12)),
  ]
  slots = [tiny.lay_out(e, letters, tiny.LAYOUT) for e in examples]
  row = tiny.RowCapacity(96, 0, 3, 4, 3)
  batch, _ = tiny.pack(slots, 1, row, tiny.LAYOUT, letters.pad_id)
  tokens = tiny.tokens(1, 3)
  written = sources_of_targets(jax.tree.map(jnp.asarray, batch), tokens)
  found = {}
  for g, picture in enumerate(batch.generated_images[0]):
    for e, source in enumerate(batch.source_images[0]):
      if (written[0, g] == tokens[0, e]).all():
        found[picture.tobytes()] = source.tobytes()
  assert found == {
    tiny.image(11).tobytes(): tiny.image(1).tobytes(),
    tiny.image(12).tobytes(): tiny.image(2).tobytes(),
  }
  assert (written == 0).all((2, 3)).sum() == 2, 'the prompt, and no image'


def test_tokens_are_channel_major_and_invertible():
  """MAR's patchify: x.reshape(n,c,h,p,w,q), 'nchpwq->nhwcpq'."""
  latents = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype('f4')
  tokens = to_tokens(jnp.asarray(latents), 2)
  nchw = latents.transpose(0, 3, 1, 2).reshape(2, 3, 2, 2, 3, 2)
  expected = np.einsum('nchpwq->nhwcpq', nchw).reshape(2, 6, 12)
  np.testing.assert_array_equal(tokens, expected)
  square = jnp.asarray(latents[:, :, :4])
  np.testing.assert_array_equal(from_tokens(to_tokens(square, 2), 2, 4), square)
