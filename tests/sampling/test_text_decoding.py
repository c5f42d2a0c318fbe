"""The cached text decoder against whole rows, and the choice of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from unifluid_jax import masking
from unifluid_jax.config.sections.sampling import TextSamplingConfig
from unifluid_jax.data.example import Example
from unifluid_jax.data.packing import prefix_batch
from unifluid_jax.sampling.seeds import sample_keys
from unifluid_jax.sampling.text_decoding import choose, decode_texts
from unifluid_jax.utils.errors import UserError

PREFIXES = (
  Example((tiny.image(1), 'caption it please'), ''),
  Example((tiny.image(2), 'what?'), ''),
)
LENGTH = 6


def write(model, letters, config, prefixes=PREFIXES):
  prefix = prefix_batch(prefixes, letters, tiny.LAYOUT, generates_image=False)
  keys = sample_keys(0, range(len(prefixes)), [0] * len(prefixes))
  run = jax.jit(
    lambda prefix: decode_texts(
      model,
      config,
      prefix,
      keys,
      letters.vocab_size,
      letters.pad_id,
      letters.eos_id,
    )
  )
  texts, finite = run(jax.tree.map(jnp.asarray, prefix))
  assert finite.all()
  return np.array(texts)


def whole_row_choice(model, letters, example, ids, length):
  """The likeliest token after a prefix and `ids`, by one whole forward."""
  target = Example(example.prefix, 'a' * LENGTH)
  slots = tiny.lay_out(target, letters, tiny.LAYOUT)
  start = int(slots.text_slots[0]) + 1
  token_ids = slots.token_ids.copy()
  token_ids[start : start + length] = ids[:length]
  row = tiny.RowCapacity(48, LENGTH + 1, 1, 0)
  batch, _ = tiny.pack(
    [slots._replace(token_ids=token_ids)], 1, row, tiny.LAYOUT, 0
  )
  batch = jax.tree.map(jnp.asarray, batch)
  order = masking.draw_order(jax.random.key(0), 1, 0, tiny.TOKENS)
  run = jax.jit(model.row_hidden_states)
  hidden = run(batch, tiny.tokens(1, 0), order)
  slot = jnp.array([[start - 1 + length]])
  logits = model.text_logits(hidden, slot)[0, 0]
  return int(jnp.argmax(logits[: letters.vocab_size]))


def test_greedy_text_equals_whole_rows(letters):
  model = tiny.make_model()
  texts = write(model, letters, TextSamplingConfig(max_tokens=LENGTH))
  for example, ids in zip(PREFIXES, texts, strict=True):
    for length in range(LENGTH):
      expected = whole_row_choice(model, letters, example, ids, length)
      if expected == letters.eos_id:
        assert (ids[length:] == letters.pad_id).all()
        break
      assert ids[length] == expected, length


@pytest.mark.parametrize(
  'config',
  [
    TextSamplingConfig(max_tokens=LENGTH),
    TextSamplingConfig(max_tokens=LENGTH, temperature=1.0, top_k=290),
  ],
)
def test_rows_beyond_the_vocabulary_are_never_drawn(letters, config):
  model = tiny.make_model()
  table = model.gemma.embedding[...]
  assert len(table) > letters.vocab_size
  # So large that some of them beats all others, whatever the hidden state.
  model.gemma.embedding[...] = table.at[letters.vocab_size :].set(
    100 * jnp.sign(table[letters.vocab_size :])
  )
  texts = write(model, letters, config, PREFIXES * 8)
  assert texts.max() < letters.vocab_size
  letters.decode(texts[0])


def logits_of(probabilities, rows=4000):
  return jnp.broadcast_to(
    jnp.log(jnp.array(probabilities)), (rows, len(probabilities))
  )


@pytest.mark.parametrize(
  ('config', 'expected'),
  [
    (TextSamplingConfig(temperature=1.0), (0.5, 0.3, 0.15, 0.05)),
    (TextSamplingConfig(temperature=1.0, top_k=2), (0.625, 0.375, 0, 0)),
    (TextSamplingConfig(temperature=1.0, top_p=0.75), (0.625, 0.375, 0, 0)),
    (
      TextSamplingConfig(temperature=0.5),
      tuple(p**2 / 0.365 for p in (0.5, 0.3, 0.15, 0.05)),
    ),
    (TextSamplingConfig(), (1, 0, 0, 0)),
    # Logits divided by as little would be infinite, or 0 / 0.
    (TextSamplingConfig(temperature=1e-39), (1, 0, 0, 0)),
    (TextSamplingConfig(temperature=1e-300, top_p=0.9), (1, 0, 0, 0)),
  ],
)
def test_tokens_are_drawn_as_configured(config, expected):
  rows = 4000
  keys = jax.random.split(jax.random.key(0), rows)
  drawn = np.array(choose(logits_of((0.5, 0.3, 0.15, 0.05)), keys, config))
  shares = np.bincount(drawn, minlength=4) / rows
  np.testing.assert_allclose(shares, expected, atol=0.03)
  assert (shares[np.array(expected) == 0] == 0).all()


def test_impossible_settings_are_refused():
  with pytest.raises(UserError, match='top_p 0'):
    TextSamplingConfig(top_p=0.0)
  with pytest.raises(UserError, match='temperature nan'):
    TextSamplingConfig(temperature=math.nan)
