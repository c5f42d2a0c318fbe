"""In bfloat16 we are no worse than transformers and diffusers.

The error of a result is its root mean square distance from transformers' or
diffusers' float32 result with the same weights. Single errors scatter by a few
per cent with the weights and the inputs; over SEEDS of both, the mean ratio of
our error to theirs must not exceed 1. There is no slack.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.weights import hub
from tests.weights.test_parity import PALIGEMMA, load
from unifluid_jax import masking
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.models.siglip import Siglip
from unifluid_jax.models.vae import VAE
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.pretrained import open_pretrained

pytestmark = pytest.mark.slow

SEEDS = range(4)
# Words that PaliGemma sees both ways.
PREFIX = 5


def theirs(hf, folder, run):
  """What `run` gives of their model in bfloat16 and in float32.

  Weights are rounded and saved, so that they are the same in both dtypes.
  """
  hub.save(hf.to(torch.bfloat16), folder)
  results = []
  for dtype in (torch.bfloat16, torch.float32):
    model = type(hf).from_pretrained(folder, torch_dtype=dtype).eval()
    if hasattr(model, 'set_attn_implementation'):
      model.set_attn_implementation('eager')
    with torch.no_grad():
      outputs = run(model, dtype)
    results.append([output.float().numpy() for output in outputs])
  return results


def ours(run, models, *inputs):
  """What `run`, compiled once for all seeds, gives of models in bfloat16."""
  for model in models:
    model.dtype = jnp.bfloat16
  outputs = run(*models, *inputs)
  return [np.asarray(output, np.float32) for output in outputs]


def ratios(ours, theirs) -> list[float]:
  """Our error by theirs, output by output."""

  def rms(x):
    return np.sqrt(np.mean(np.square(x)))

  return [
    rms(our_low - exact) / rms(their_low - exact)
    for our_low, their_low, exact in zip(ours, *theirs, strict=True)
  ]


def assert_no_worse(ratios_of_seeds):
  """Geometric means over the seeds, output by output."""
  means = np.exp(np.log(ratios_of_seeds).mean(0))
  assert (means <= 1).all(), (means, ratios_of_seeds)


def pictures(seed, count, size):
  """Random pictures, for us and for PyTorch."""
  rng = np.random.default_rng(seed)
  images = rng.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
  return jnp.asarray(images), torch.tensor(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize('case', hub.GEMMA)
def test_gemma(case, tmp_path):
  mask = jnp.tril(jnp.ones((16, 40, 40), bool))
  positions = jnp.broadcast_to(jnp.arange(40), (16, 40))

  @nnx.jit
  def run(model, tokens):
    return [model.logits(model(model.embed(tokens), positions, mask)[0])]

  def compare(seed):
    folder = tmp_path / str(seed)
    tokens = np.random.default_rng(seed).integers(0, 61, (16, 40))
    expected = theirs(
      hub.gemma(case, seed),
      folder,
      lambda hf, _: [hf(torch.tensor(tokens)).logits],
    )
    found = ours(run, [load(folder, 'gemma', Gemma)], jnp.asarray(tokens))
    return ratios(found, expected)

  assert_no_worse([compare(seed) for seed in SEEDS])


@pytest.mark.parametrize('case', hub.SIGLIP)
def test_siglip(case, tmp_path):
  run = nnx.jit(lambda model, images: [model(images)])

  def compare(seed):
    folder = tmp_path / str(seed)
    images, pixels = pictures(seed, 128, hub.SIGLIP[case][0])
    expected = theirs(
      hub.siglip(case, seed),
      folder,
      lambda hf, dtype: [hf(pixel_values=pixels.to(dtype)).last_hidden_state],
    )
    model = load(folder, 'encoder', Siglip)
    return ratios(ours(run, [model], images), expected)

  assert_no_worse([compare(seed) for seed in SEEDS])


@pytest.mark.parametrize('case', hub.VAE)
def test_autoencoder(case, tmp_path):
  @nnx.jit
  def run(vae, images, latents):
    return [*vae.encode(images), vae.decode(latents)]

  def compare(seed):
    folder = tmp_path / str(seed)
    images, pixels = pictures(seed, 8, 16)
    hf = hub.vae(case, seed)
    with torch.no_grad():
      given = hf.encode(pixels).latent_dist.mean
    latents = jnp.asarray(given.permute(0, 2, 3, 1).numpy())

    def run_theirs(hf, dtype):
      posterior = hf.encode(pixels.to(dtype)).latent_dist
      decoded = hf.decode(given.to(dtype)).sample
      outputs = (posterior.mean, posterior.logvar, decoded)
      return [output.permute(0, 2, 3, 1) for output in outputs]

    expected = theirs(hf, folder, run_theirs)
    found = ours(run, [load(folder, 'vae', VAE)], images, latents)
    return ratios(found, expected)

  assert_no_worse([compare(seed) for seed in SEEDS])


@pytest.mark.parametrize(('text', 'vision'), PALIGEMMA)
def test_paligemma(text, vision, tmp_path):
  def compare(seed):
    hf = hub.paligemma(text, vision, seed)
    return compare_paligemma(hf, tmp_path / str(seed), seed)

  assert_no_worse([compare(seed) for seed in SEEDS])


def compare_paligemma(hf, folder, seed):
  """Image, prefix seen both ways, causal suffix."""
  rows = 32
  vision = hf.config.vision_config
  images, pixels = pictures(seed, rows, vision.image_size)
  soft = (vision.image_size // vision.patch_size) ** 2
  words = np.random.default_rng(seed).integers(0, 60, (rows, 12))
  ids = np.concatenate([np.full((rows, soft), 63), words], axis=1)
  kinds = np.zeros_like(ids)
  kinds[:, soft + PREFIX :] = 1
  inputs = {
    'input_ids': torch.tensor(ids),
    'attention_mask': torch.ones(ids.shape, dtype=torch.long),
    'token_type_ids': torch.tensor(kinds),
  }
  expected = theirs(
    hf,
    folder,
    lambda hf, dtype: [hf(**inputs, pixel_values=pixels.to(dtype)).logits],
  )
  source = open_pretrained(str(folder), ('connector',))
  weight, bias = (
    jnp.asarray(read(source.arrays[name], dtype=np.float32))
    for name in ('connector', 'connector_bias')
  )
  models = [load(folder, 'gemma', Gemma), load(folder, 'encoder', Siglip)]
  inputs = (weight, bias, images, jnp.asarray(words))
  return ratios(ours(run_paligemma, models, *inputs), expected)


@nnx.jit
def run_paligemma(gemma, encoder, weight, bias, images, words):
  """The same of our two models and the connector."""
  features = encoder(images)
  dtype = features.dtype
  features = features @ weight.astype(dtype) + bias.astype(dtype)
  x = jnp.concatenate([features, gemma.embed(words)], axis=1)
  shape = x.shape[:2]
  positions = jnp.broadcast_to(jnp.arange(shape[1]), shape)
  is_suffix = positions >= features.shape[1] + PREFIX
  mask = masking.attention_mask(
    jnp.ones(shape, jnp.int32), is_suffix.astype(jnp.int32)
  )
  return [gemma.logits(gemma(x, positions, mask)[0])]
