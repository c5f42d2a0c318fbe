"""A very small UniFluid and batches for it, shared by the tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unifluid_jax.batch import Batch
from unifluid_jax.data.example import Example
from unifluid_jax.data.layout import LayoutConfig, lay_out
from unifluid_jax.data.packing import RowCapacity, pack
from unifluid_jax.models import parameters
from unifluid_jax.models.diffusion_head import DiffusionHeadConfig
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.unifluid import (
  ImageTokens,
  ModelConfig,
  UniFluid,
)

TOKENS = 9
LAYOUT = LayoutConfig(
  understanding_tokens=4,
  generated_tokens=TOKENS,
  source_tokens=True,
  understanding_size=8,
  generated_size=8,
  max_text=24,
)
CONFIG = ModelConfig(
  gemma=GemmaConfig(
    vocab_size=300,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_dim=48,
    attention_softcap=50.0,
    final_softcap=30.0,
    post_norms=True,
  ),
  encoder=SiglipConfig(
    image_size=8, patch_size=4, width=16, layers=1, heads=2, mlp_dim=32
  ),
  head=DiffusionHeadConfig(width=16, depth=2),
  source_tokens=True,
)
IMAGE_TOKENS = ImageTokens(count=TOKENS, dim=6, boi_id=5)


@functools.cache
def make_model(config: ModelConfig = CONFIG) -> UniFluid:
  """A model whose head answers, unlike a fresh one, whose output is zero."""

  @jax.jit
  def values():
    model = UniFluid(config, IMAGE_TOKENS, rngs=nnx.Rngs(0))
    _, flat = parameters.flatten(model)
    keys = jax.random.split(jax.random.key(7), len(flat))
    return {
      name: value + 0.05 * jax.random.normal(key, value.shape)
      for key, (name, value) in zip(keys, flat.items(), strict=True)
    }

  graphdef = nnx.graphdef(
    nnx.eval_shape(lambda: UniFluid(config, IMAGE_TOKENS, rngs=nnx.Rngs(0)))
  )
  return parameters.unflatten(graphdef, values())


def image(seed: int) -> np.ndarray:
  """A random picture of 8 x 8 pixels."""
  return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def examples() -> list[Example]:
  """One example of each shape: two images, two texts, one from nothing."""
  return [
    Example(('a cat',), image(0)),
    Example((image(1), 'caption'), 'a dog'),
    Example((image(2), 'edit: flip'), image(3)),
    Example((image(4), 'what?'), 'x'),
    Example((), image(5)),
  ]


def batch(tokenizer, rows: int = 2, length: int = 64) -> Batch:
  """The examples, packed."""
  slots = [lay_out(example, tokenizer, LAYOUT) for example in examples()]
  row = RowCapacity(length, 24, 2, 2, 1)
  packed, dropped = pack(slots, rows, row, LAYOUT, tokenizer.pad_id)
  assert not dropped
  return jax.tree.map(jnp.asarray, packed)


def tokens(rows: int, images: int) -> jax.Array:
  """Random image tokens [rows images N Z]."""
  shape = (rows, images, TOKENS, IMAGE_TOKENS.dim)
  return jax.random.normal(jax.random.key(3), shape)
