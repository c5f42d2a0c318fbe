"""Imported models against transformers and diffusers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.weights import hub
from unifluid_jax import masking
from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.models.siglip import Siglip
from unifluid_jax.models.vae import VAE
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.pretrained import open_pretrained

ROWS, PROMPT, DECODED = 2, 9, 32


def load(folder, part, make, dtype=np.float32, **kwargs):
  """Our model of one part of what was saved in a folder."""
  source = open_pretrained(str(folder), (part,))
  config = source.configs[part]
  model = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0), **kwargs))
  values = {
    name.removeprefix(f'{part}/'): jnp.asarray(read(array, dtype=dtype))
    for name, array in source.arrays.items()
  }
  return parameters.unflatten(nnx.graphdef(model), values)


def error(ours, theirs) -> float:
  """Largest error relative to the largest value."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


@nnx.jit
def step(model, tokens, positions, mask, cache, index):
  hidden, cache = model(model.embed(tokens), positions, mask, cache, index)
  return model.logits(hidden), cache


def first_cases(cases):
  """The first case of a family is fast to run; the others are slow."""
  seen = set()
  for case in cases:
    family = case.rsplit(' ', 1)[0]
    slow = [pytest.mark.slow] if family in seen else []
    seen.add(family)
    yield pytest.param(case, marks=slow)


@pytest.mark.parametrize('case', first_cases(hub.GEMMA))
def test_padded_prefill_and_32_decoded_tokens(case, tmp_path):
  hf = hub.gemma(case)
  hub.save(hf, tmp_path, max_shard_size='9KB')
  model = load(tmp_path, 'gemma', Gemma)
  length = PROMPT + DECODED
  valid = np.ones((ROWS, length), bool)
  valid[1, :4] = False
  positions = np.maximum(valid.cumsum(1) - 1, 0)
  tokens = np.random.default_rng(0).integers(0, 61, (ROWS, length))
  with torch.no_grad():
    expected = hf(
      torch.tensor(tokens),
      attention_mask=torch.tensor(valid.astype(int)),
      position_ids=torch.tensor(positions),
    ).logits.numpy()
  mask = np.tril(np.ones((length, length), bool)) & valid[:, None]
  cache = model.init_cache(ROWS, length)
  outputs = []
  starts = [0, *range(PROMPT, length), length]
  for start, stop in zip(starts, starts[1:], strict=False):
    part = slice(start, stop)
    logits, cache = step(
      model,
      jnp.asarray(tokens[:, part]),
      jnp.asarray(positions[:, part]),
      jnp.asarray(mask[:, part]),
      cache,
      jnp.int32(start),
    )
    outputs.append(logits)
  logits = np.concatenate(outputs, axis=1)
  assert error(logits[valid], expected[valid]) < 1e-5


@pytest.mark.parametrize('case', first_cases(hub.SIGLIP))
def test_siglip(case, tmp_path):
  hf = hub.siglip(case)
  model = load(hub.save(hf, tmp_path), 'encoder', Siglip)
  size = model.config.image_size
  images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3))
  images = images.astype(np.float32)
  with torch.no_grad():
    expected = hf(pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)))
  features = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(images))
  assert error(features, expected.last_hidden_state.numpy()) < 1e-5


@pytest.mark.parametrize('case', first_cases(hub.VAE))
def test_autoencoder(case, tmp_path):
  hf = hub.vae(case, scaling_factor=0.3, shift_factor=0.2)
  vae = load(hub.save(hf, tmp_path), 'vae', VAE)
  images = torch.rand(2, 3, 16, 16) * 2 - 1
  with torch.no_grad():
    posterior = hf.encode(images).latent_dist
    decoded = hf.decode(posterior.mean).sample

  @nnx.jit
  def both(vae, images):
    moments = vae.encode(images)
    normal = vae.normalize(moments.mean)
    return *moments, vae.decode(moments.mean), normal

  ours = both(vae, jnp.asarray(images.permute(0, 2, 3, 1).numpy()))
  normal = (posterior.mean - 0.2) * 0.3
  for mine, theirs in zip(
    ours, (posterior.mean, posterior.logvar, decoded, normal), strict=True
  ):
    assert error(mine, theirs.permute(0, 2, 3, 1).numpy()) < 1e-5


PALIGEMMA = (
  ('gemma 1 MQA', 'three heads'),
  ('gemma 1 MHA', 'one layer'),
  ('gemma 1 GQA', 'one patch'),
  ('gemma 2 GQA', 'three heads'),
  ('gemma 2 MHA', 'one layer'),
  ('gemma 2 MQA', 'one patch'),
)


@pytest.mark.parametrize(
  ('text', 'vision'),
  [
    pytest.param(*case, marks=[] if case[0] == 'gemma 2 GQA' else slow)
    for slow in [pytest.mark.slow]
    for case in PALIGEMMA
  ],
)
def test_paligemma(text, vision, tmp_path):
  """Image, prefix seen both ways, causal suffix."""
  hf = hub.paligemma(text, vision)
  hub.save(hf, tmp_path)
  gemma = load(tmp_path, 'gemma', Gemma)
  encoder = load(tmp_path, 'encoder', Siglip)
  connector = {
    name: jnp.asarray(read(array))
    for name, array in open_pretrained(
      str(tmp_path), ('connector',)
    ).arrays.items()
  }
  size, soft = encoder.config.image_size, encoder.config.tokens
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (ROWS, size, size, 3)).astype(np.float32)
  words = rng.integers(0, 60, (ROWS, 12))
  prefix = 5
  ids = np.concatenate([np.full((ROWS, soft), 63), words], axis=1)
  kinds = np.zeros_like(ids)
  kinds[:, soft + prefix :] = 1
  with torch.no_grad():
    expected = hf(
      input_ids=torch.tensor(ids),
      pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)),
      attention_mask=torch.ones(ids.shape, dtype=torch.long),
      token_type_ids=torch.tensor(kinds),
    ).logits.numpy()

  @nnx.jit
  def run(gemma, encoder, images, words):
    features = encoder(images) @ connector['connector']
    features = features + connector['connector_bias']
    x = jnp.concatenate([features, gemma.embed(words)], axis=1)
    mask = masking.attention_mask(
      jnp.ones(ids.shape, jnp.int32), jnp.asarray(kinds)
    )
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return gemma.logits(gemma(x, positions, mask)[0])

  logits = run(gemma, encoder, jnp.asarray(images), jnp.asarray(words))
  assert error(logits, expected) < 1e-5


def test_the_connector_of_unifluid_has_its_bias():
  from tests import tiny  # noqa: PLC0415

  @nnx.jit
  def both(model, images):
    features = model.encoder(images) @ model.connector[...]
    return (
      model.embed_understanding(images),
      features + model.connector_bias[...],
    )

  images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
  soft, expected = both(tiny.make_model(), images)
  np.testing.assert_allclose(soft, expected, rtol=1e-5, atol=1e-5)
