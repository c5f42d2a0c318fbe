"""In bfloat16 we are no worse than transformers and diffusers.

The error is each one's own, against the float32 result of the same weights.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.convert import hub
from tests.convert.test_parity import PALIGEMMA, error, load
from unifluid_jax import masking
from unifluid_jax.convert.assembly import read
from unifluid_jax.convert.pretrained import open_pretrained
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.models.siglip import Siglip
from unifluid_jax.models.vae import VAE

pytestmark = pytest.mark.slow

# Errors of many values still differ by chance.
SLACK = 1.08


def save(hf, folder):
  """Saves rounded weights, which are then the same in both dtypes."""
  hub.save(hf.to(torch.bfloat16), folder)
  return type(hf)


def theirs(make, folder, run):
  """What `run` gives of their model in bfloat16 and in float32."""
  results = []
  for dtype in (torch.bfloat16, torch.float32):
    model = make.from_pretrained(folder, torch_dtype=dtype).eval()
    if hasattr(model, 'set_attn_implementation'):
      model.set_attn_implementation('eager')
    with torch.no_grad():
      outputs = run(model, dtype)
    results.append([output.float().numpy() for output in outputs])
  return results


def ours(models, run):
  """What `run` gives of our models in bfloat16 and in float32."""
  results = []
  for dtype in (jnp.bfloat16, jnp.float32):
    for model in models:
      model.dtype = dtype
    outputs = nnx.jit(lambda *models: run(*models))(*models)
    results.append([np.asarray(output, np.float32) for output in outputs])
  return results


def assert_no_worse(ours, theirs):
  """Compares root mean squares of the errors, output by output."""
  for low, wide, their_low, exact in zip(*ours, *theirs, strict=True):
    assert error(wide, exact) < 1e-5
    found, limit = (
      np.sqrt(np.mean(np.square(x - exact))) for x in (low, their_low)
    )
    assert found <= SLACK * limit, found / limit


def pictures(count, size):
  """Random pictures, for us and for PyTorch."""
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
  return jnp.asarray(images), torch.tensor(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize('case', ['gemma 1 MQA', 'gemma 2 GQA', 'gemma 3 MHA'])
def test_gemma(case, tmp_path):
  make = save(hub.gemma(case), tmp_path)
  tokens = np.random.default_rng(0).integers(0, 61, (16, 40))
  expected = theirs(
    make, tmp_path, lambda model, _: [model(torch.tensor(tokens)).logits]
  )
  mask = jnp.tril(jnp.ones((16, 40, 40), bool))
  positions = jnp.broadcast_to(jnp.arange(40), (16, 40))

  def run(model):
    embedded = model.embed(jnp.asarray(tokens))
    return [model.logits(model(embedded, positions, mask)[0])]

  found = ours([load(tmp_path, 'gemma', Gemma)], run)
  assert_no_worse(found, expected)


@pytest.mark.parametrize('case', hub.SIGLIP)
def test_siglip(case, tmp_path):
  make = save(hub.siglip(case), tmp_path)
  model = load(tmp_path, 'encoder', Siglip)
  images, pixels = pictures(128, model.config.image_size)
  expected = theirs(
    make,
    tmp_path,
    lambda hf, dtype: [hf(pixel_values=pixels.to(dtype)).last_hidden_state],
  )
  assert_no_worse(ours([model], lambda model: [model(images)]), expected)


@pytest.mark.parametrize('case', hub.VAE)
def test_autoencoder(case, tmp_path):
  make = save(hub.vae(case), tmp_path)
  images, pixels = pictures(8, 16)
  model = load(tmp_path, 'vae', VAE)
  latents = model.encode(images).mean
  given = torch.tensor(np.asarray(latents).transpose(0, 3, 1, 2))

  def run_theirs(hf, dtype):
    posterior = hf.encode(pixels.to(dtype)).latent_dist
    decoded = hf.decode(given.to(dtype)).sample
    outputs = (posterior.mean, posterior.logvar, decoded)
    return [output.permute(0, 2, 3, 1) for output in outputs]

  expected = theirs(make, tmp_path, run_theirs)
  found = ours([model], lambda vae: [*vae.encode(images), vae.decode(latents)])
  assert_no_worse(found, expected)


@pytest.mark.parametrize(('text', 'vision'), PALIGEMMA)
def test_paligemma(text, vision, tmp_path):
  make = save(hub.paligemma(text, vision), tmp_path)
  gemma = load(tmp_path, 'gemma', Gemma)
  encoder = load(tmp_path, 'encoder', Siglip)
  source = open_pretrained(str(tmp_path), ('connector',))
  weight, bias = (
    jnp.asarray(read(source.arrays[name], dtype=np.float32))
    for name in ('connector', 'connector_bias')
  )
  rows, soft, prefix = 32, encoder.config.tokens, 5
  images, pixels = pictures(rows, encoder.config.image_size)
  words = np.random.default_rng(0).integers(0, 60, (rows, 12))
  ids = np.concatenate([np.full((rows, soft), 63), words], axis=1)
  kinds = np.zeros_like(ids)
  kinds[:, soft + prefix :] = 1
  inputs = {
    'input_ids': torch.tensor(ids),
    'attention_mask': torch.ones(ids.shape, dtype=torch.long),
    'token_type_ids': torch.tensor(kinds),
  }
  expected = theirs(
    make,
    tmp_path,
    lambda hf, dtype: [hf(**inputs, pixel_values=pixels.to(dtype)).logits],
  )
  mask = masking.attention_mask(
    jnp.ones(ids.shape, jnp.int32), jnp.asarray(kinds)
  )
  positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)

  def run(gemma, encoder):
    features = encoder(images)
    dtype = features.dtype
    features = features @ weight.astype(dtype) + bias.astype(dtype)
    embedded = gemma.embed(jnp.asarray(words))
    x = jnp.concatenate([features, embedded], axis=1)
    return [gemma.logits(gemma(x, positions, mask)[0])]

  assert_no_worse(ours([gemma, encoder], run), expected)
