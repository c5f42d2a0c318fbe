"""Gemma against transformers' eager models, and against itself."""

import dataclasses
import functools
import itertools

import hf_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.gemma import GemmaConfig as HFGemmaConfig
from transformers.models.gemma import GemmaForCausalLM
from transformers.models.gemma2 import Gemma2Config, Gemma2ForCausalLM
from transformers.models.gemma3 import Gemma3ForCausalLM, Gemma3TextConfig

from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import GLOBAL, LOCAL, Gemma, GemmaConfig
from unifluid_jax.utils.errors import UserError

ROWS, LENGTH = 2, 19

GEMMA1_MQA = GemmaConfig(
  vocab_size=61,
  width=24,
  layers=3,
  heads=4,
  kv_heads=1,
  head_dim=10,
  mlp_dim=36,
)
GEMMA2_GQA = GemmaConfig(
  vocab_size=57,
  width=32,
  layers=3,
  heads=4,
  kv_heads=2,
  head_dim=8,
  mlp_dim=44,
  attention_softcap=2.0,
  final_softcap=3.0,
  post_norms=True,
  query_scale=5**-0.5,
  pattern=(LOCAL, GLOBAL),
  window=4,
)
GEMMA3_MQA = GemmaConfig(
  vocab_size=53,
  width=24,
  layers=4,
  heads=3,
  kv_heads=1,
  head_dim=8,
  mlp_dim=28,
  post_norms=True,
  qk_norm=True,
  query_scale=8**-0.5,
  pattern=(LOCAL, LOCAL, GLOBAL),
  window=5,
  rope_theta=1_000_000.0,
)
CONFIGS = {
  'gemma1 MQA': GEMMA1_MQA,
  'gemma1 MHA': dataclasses.replace(
    GEMMA1_MQA, heads=3, kv_heads=3, layers=1, norm_eps=1e-3
  ),
  'gemma2 GQA': GEMMA2_GQA,
  'gemma2 MHA': dataclasses.replace(
    GEMMA2_GQA, kv_heads=4, layers=4, window=7, final_softcap=None
  ),
  'gemma3 MQA': GEMMA3_MQA,
  'gemma3 GQA': dataclasses.replace(
    GEMMA3_MQA,
    heads=4,
    kv_heads=2,
    width=28,
    rope_scaling=8.0,
    window=3,
    final_softcap=2.0,
  ),
}


def make_hf(config: GemmaConfig) -> torch.nn.Module:
  """A transformers model of this shape; every parameter is random."""
  kwargs = {
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'intermediate_size': config.mlp_dim,
    'rms_norm_eps': config.norm_eps,
    'attn_implementation': 'eager',
  }
  if config.post_norms:
    kwargs |= {
      'query_pre_attn_scalar': round(config.query_scale**-2),
      'attn_logit_softcapping': config.attention_softcap,
      'final_logit_softcapping': config.final_softcap,
      'sliding_window': config.window,
      'layer_types': [
        {LOCAL: 'sliding_attention', GLOBAL: 'full_attention'}[kind]
        for kind in config.layer_kinds
      ],
    }
  torch.manual_seed(0)
  if config.qk_norm:
    scaled = {'rope_type': 'linear', 'factor': config.rope_scaling}
    kwargs['rope_parameters'] = {
      'full_attention': {**scaled, 'rope_theta': config.rope_theta},
      'sliding_attention': {
        'rope_type': 'default',
        'rope_theta': config.local_rope_theta,
      },
    }
    model = Gemma3ForCausalLM(Gemma3TextConfig(**kwargs))
  elif config.post_norms:
    model = Gemma2ForCausalLM(Gemma2Config(**kwargs))
  else:
    model = GemmaForCausalLM(HFGemmaConfig(**kwargs))
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      parameter.normal_(0, 0.3 if 'norm' in name else 1.5 * config.width**-0.5)
  return model.eval()


@functools.cache
def make_pair(case: str) -> tuple[torch.nn.Module, Gemma]:
  """The same weights in transformers and in our model."""
  config = CONFIGS[case]
  hf = make_hf(config)
  return hf, from_values(config, hf_weights.import_weights(hf, 'gemma'))


def from_values(
  config: GemmaConfig, values: dict[str, np.ndarray], **kwargs
) -> Gemma:
  """A model of these parameters, which must be all of them."""
  model = nnx.eval_shape(lambda: Gemma(config, rngs=nnx.Rngs(0), **kwargs))
  graphdef, state = nnx.split(model)
  assert {name: value.shape for name, value in values.items()} == {
    '/'.join(path): leaf.shape for path, leaf in nnx.to_flat_state(state)
  }
  return parameters.unflatten(graphdef, jax.tree.map(jnp.asarray, values))


def make_model(config: GemmaConfig, **kwargs) -> Gemma:
  """A model with random parameters, made without compiling its init."""
  values = hf_weights.import_weights(make_hf(config), 'gemma')
  return from_values(config, values, **kwargs)


def make_tokens(config: GemmaConfig, length: int = LENGTH) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, config.vocab_size, (ROWS, length))


def causal(length: int) -> np.ndarray:
  return np.tril(np.ones((ROWS, length, length), bool))


def count_up(length: int) -> jax.Array:
  return jnp.broadcast_to(jnp.arange(length), (ROWS, length))


def assert_close(ours, reference, relative: float = 1e-5):
  """Largest error relative to the largest value."""
  ours, reference = np.asarray(ours, float), np.asarray(reference, float)
  assert ours.shape == reference.shape
  error = np.abs(ours - reference).max() / np.abs(reference).max()
  assert error < relative, error


@nnx.jit
def run(model, tokens, positions, mask, cache=None, index=0):
  """Logits, final hidden states and the cache."""
  x = model.embed(jnp.asarray(tokens))
  hidden, cache = model(x, positions, jnp.asarray(mask), cache, index)
  return model.logits(hidden), hidden, cache


# Against transformers -------------------------------------------------------


@pytest.mark.parametrize('case', CONFIGS)
def test_left_padded_forward_equals_transformers(case):
  hf, model = make_pair(case)
  tokens = make_tokens(model.config)
  valid = np.ones((ROWS, LENGTH), bool)
  valid[1, :6] = False
  positions = np.maximum(valid.cumsum(1) - 1, 0)
  with torch.no_grad():
    expected = hf(
      torch.tensor(tokens),
      attention_mask=torch.tensor(valid.astype(int)),
      position_ids=torch.tensor(positions),
    ).logits.numpy()
  mask = causal(LENGTH) & valid[:, None, :]
  logits, _, cache = run(model, tokens, jnp.asarray(positions), mask)
  assert cache is None
  assert_close(logits[valid], expected[valid])


@pytest.mark.parametrize('case', CONFIGS)
def test_prefix_lm_mask_equals_transformers(case):
  hf, model = make_pair(case)
  tokens = make_tokens(model.config)
  mask = causal(LENGTH)
  mask[0, :5, :5] = True
  mask[1, :11, :11] = True
  distance = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))
  window = model.config.window or LENGTH

  def additive(seen: np.ndarray) -> torch.Tensor:
    lowest = torch.finfo(torch.float32).min
    return torch.where(torch.tensor(seen), 0.0, lowest)[:, None]

  masks = {
    'full_attention': additive(mask),
    'sliding_attention': additive(mask & (distance < window)),
  }
  if not model.config.post_norms:
    masks = masks['full_attention']
  with torch.no_grad():
    expected = hf(torch.tensor(tokens), attention_mask=masks).logits.numpy()
  logits, _, _ = run(model, tokens, count_up(LENGTH), mask)
  assert_close(logits, expected)


@pytest.mark.parametrize('case', CONFIGS)
def test_prefill_and_decode_equal_transformers(case):
  hf, model = make_pair(case)
  tokens = make_tokens(model.config)
  with torch.no_grad():
    expected = hf(torch.tensor(tokens)).logits.numpy()
  prefill, spare = LENGTH - 8, 3
  positions = count_up(LENGTH)
  mask = np.pad(causal(LENGTH), [(0, 0), (0, 0), (0, spare)])
  cache = model.init_cache(ROWS, LENGTH + spare)
  outputs = []
  for start, stop in itertools.pairwise([0, *range(prefill, LENGTH + 1)]):
    part = slice(start, stop)
    logits, _, cache = run(
      model, tokens[:, part], positions[:, part], mask[:, part], cache, start
    )
    outputs.append(logits)
  assert_close(jnp.concatenate(outputs, axis=1), expected)


# Against itself -------------------------------------------------------------


def test_window_counts_positions_not_slots():
  _, model = make_pair('gemma2 GQA')
  tokens, positions = make_tokens(model.config), count_up(LENGTH)
  expected, _, _ = run(model, tokens, positions, causal(LENGTH))
  head, gap = 8, 6
  assert gap > model.config.window
  mask = np.insert(causal(LENGTH), [head] * gap, False, axis=2)
  cache = model.init_cache(ROWS, LENGTH + gap)
  outputs = []
  for part, index in [(slice(0, head), 0), (slice(head, None), head + gap)]:
    logits, _, cache = run(
      model, tokens[:, part], positions[:, part], mask[:, part], cache, index
    )
    outputs.append(logits)
  assert_close(jnp.concatenate(outputs, axis=1), expected)
  np.testing.assert_array_equal(
    cache.positions[:, head + gap :], positions[:, head:]
  )


def test_overwritten_speculative_slots_leave_no_trace():
  _, model = make_pair('gemma3 MQA')
  tokens, positions = make_tokens(model.config), count_up(LENGTH)
  mask, head, guesses = causal(LENGTH), 9, 4

  def step(start, stop, cache):
    part = slice(start, stop)
    return run(
      model, tokens[:, part], positions[:, part], mask[:, part], cache, start
    )

  _, _, clean = step(0, head, model.init_cache(ROWS, LENGTH))
  # Guesses see the context and themselves, not each other.
  guess_mask = np.zeros((ROWS, guesses, LENGTH), bool)
  guess_mask[..., :head] = True
  guess_mask[..., head : head + guesses] = np.eye(guesses, dtype=bool)
  _, _, dirty = run(
    model,
    tokens[:, -guesses:],
    jnp.full((ROWS, guesses), head),
    guess_mask,
    clean,
    head,
  )
  assert not np.array_equal(dirty.keys, clean.keys)
  stop = head + guesses // 2
  expected, _, clean = step(head, stop, clean)
  logits, _, dirty = step(head, stop, dirty)
  np.testing.assert_array_equal(logits, expected)
  np.testing.assert_array_equal(
    dirty.keys[:, :, :stop], clean.keys[:, :, :stop]
  )
  np.testing.assert_array_equal(
    dirty.values[:, :, :stop], clean.values[:, :, :stop]
  )


@pytest.mark.parametrize('case', ['gemma1 MQA', 'gemma2 GQA'])
def test_packed_segments_do_not_leak(case):
  _, model = make_pair(case)
  cut = 8
  segments = jnp.where(jnp.arange(LENGTH) < cut, 1, 2)
  positions = count_up(LENGTH) - jnp.where(segments == 2, cut, 0)
  mask = jnp.asarray(causal(LENGTH)) & (segments[:, None] == segments)
  tokens = make_tokens(model.config)

  @jax.jit
  def second_segment(x):
    hidden, pullback = jax.vjp(lambda x: model(x, positions, mask)[0], x)
    ask = jnp.where(segments[:, None] == 2, jnp.sin(hidden), 0)
    return hidden[:, cut:], *pullback(ask)

  hidden, gradient = second_segment(model.embed(jnp.asarray(tokens)))
  np.testing.assert_array_equal(gradient[:, :cut], 0)
  assert np.abs(gradient[:, cut:]).max() > 0
  _, alone, _ = run(
    model, tokens[:, cut:], positions[:, cut:], causal(LENGTH - cut)
  )
  assert_close(hidden, alone)


def test_slots_that_see_nothing_are_finite_and_unseen():
  _, model = make_pair('gemma2 GQA')
  x = model.embed(jnp.asarray(make_tokens(model.config)))
  valid = jnp.arange(LENGTH) < 12
  mask = jnp.asarray(causal(LENGTH)) & valid & valid[:, None]
  graphdef, values = parameters.flatten(model)

  def loss(values, x):
    model = parameters.unflatten(graphdef, values)
    hidden, _ = model(x, count_up(LENGTH), mask)
    logits = jnp.where(valid[:, None], model.logits(hidden), 0)
    return jnp.sum(jnp.sin(logits)), hidden

  compute = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
  (gradients, gradient_x), hidden = compute(values, x)
  assert np.isfinite(hidden).all()
  assert all(np.isfinite(g).all() for g in gradients.values())
  assert np.abs(gradient_x[:, :12]).max() > 0
  np.testing.assert_array_equal(gradient_x[:, 12:], 0)


def test_bfloat16_stays_near_float32():
  config = GEMMA3_MQA
  model, half = make_model(config), make_model(config, dtype=jnp.bfloat16)
  # Far out, where phases kept in bfloat16 would be off by whole turns.
  inputs = make_tokens(config), count_up(LENGTH) + 3001, causal(LENGTH)
  expected, _, _ = run(model, *inputs)
  logits, hidden, _ = run(half, *inputs)
  assert hidden.dtype == jnp.bfloat16
  assert logits.dtype == jnp.float32
  error = jnp.sqrt(jnp.mean((logits - expected) ** 2) / jnp.mean(expected**2))
  assert error < 0.03


@functools.cache
def loss_and_gradients(**kwargs):
  config = dataclasses.replace(GEMMA3_MQA, pattern=(LOCAL, GLOBAL))
  graphdef, values = parameters.flatten(make_model(config, **kwargs))
  tokens = jnp.asarray(make_tokens(config))

  def loss(values):
    model = parameters.unflatten(graphdef, values)
    mask = jnp.asarray(causal(LENGTH))
    hidden, _ = model(model.embed(tokens), count_up(LENGTH), mask)
    return jnp.mean(model.logits(hidden) ** 2)

  return jax.jit(jax.value_and_grad(loss))(values)


@pytest.mark.parametrize(
  'kwargs', [{'remat': 'full'}, {'remat': 'dots', 'unroll': 2}]
)
def test_unroll_and_remat_do_not_change_results(kwargs):
  expected_loss, expected = loss_and_gradients()
  loss, gradients = loss_and_gradients(**kwargs)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  assert gradients.keys() == expected.keys()
  for name, gradient in gradients.items():
    assert_close(gradient, expected[name])


def test_embedding_factor_is_rounded_to_the_compute_dtype():
  # sqrt(3072) = 55.43 is 55.5 in bfloat16.
  config = dataclasses.replace(
    GEMMA1_MQA, width=3072, layers=1, head_dim=2, mlp_dim=2
  )
  model = make_model(config, dtype=jnp.bfloat16)
  tokens = jnp.asarray(make_tokens(config))
  rows = model.embedding[...][tokens].astype(jnp.bfloat16)
  np.testing.assert_array_equal(
    model.embed(tokens), rows * jnp.asarray(55.5, jnp.bfloat16)
  )


def test_fresh_embeddings_and_logits_have_unit_variance():
  config = dataclasses.replace(GEMMA1_MQA, width=256, vocab_size=999)
  model = nnx.jit(lambda: Gemma(config, rngs=nnx.Rngs(0)))()
  tokens = make_tokens(config)
  logits, _, _ = run(model, tokens, count_up(LENGTH), causal(LENGTH))
  assert 0.9 < jnp.std(model.embed(jnp.asarray(tokens))) < 1.1
  assert 0.8 < jnp.std(logits) < 1.2


def test_every_parameter_names_its_axes():
  _, model = make_pair('gemma3 MQA')
  values = parameters.flatten(model)[1]
  for name, axes in parameters.logical_axes(model).items():
    assert len(axes) == values[name].ndim, name
    assert (axes[0] == 'layers') == name.startswith('stack'), name
    assert len(set(axes) - {None}) == len([a for a in axes if a]), name


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'kv_heads': 3}, '4 heads and 3 kv_heads'),
    ({'head_dim': 7}, 'head_dim is 7'),
    ({'pattern': ('globl',)}, "'globl'"),
    ({'pattern': ()}, 'pattern'),
    ({'pattern': (LOCAL,), 'window': None}, 'window'),
  ],
)
def test_wrong_configs_are_told(change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(GEMMA1_MQA, **change)
