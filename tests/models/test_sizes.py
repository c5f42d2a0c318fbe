"""Named sizes against published parameter counts, without making weights."""

import math

import pytest
from flax import nnx

from unifluid_jax.models.gemma import GLOBAL, LOCAL, Gemma
from unifluid_jax.models.siglip import Siglip
from unifluid_jax.models.sizes import GEMMA_SIZES, SIGLIP_SIZES


def count(make) -> dict[str, int]:
  """Elements of each parameter of the model that `make` would make."""
  state = nnx.to_flat_state(nnx.state(nnx.eval_shape(make)))
  return {'/'.join(path): math.prod(leaf.shape) for path, leaf in state}


# Million parameters without the embedding table.
@pytest.mark.parametrize(
  ('size', 'millions'),
  [
    ('gemma1_2b', 1981.9),
    ('gemma1_7b', 7751.2),
    ('gemma2_0.7b', 743.9),
    ('gemma2_2b', 2024.5),
    ('gemma2_9b', 8324.2),
    ('gemma2_27b', 26_047.5),
    ('gemma3_270m', 100.3),
    ('gemma3_1b', 697.9),
    ('gemma3_4b', 3209.0),
    ('gemma3_12b', 10_759.2),
    ('gemma3_27b', 25_599.7),
    ('tiny', 3.3),
  ],
)
def test_gemma_sizes(size, millions):
  config = GEMMA_SIZES[size]
  counts = count(lambda: Gemma(config, rngs=nnx.Rngs(0)))
  table = counts.pop('embedding')
  assert table == config.vocab_size * config.width
  assert sum(counts.values()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_all_gemma_sizes_are_tested():
  tested = test_gemma_sizes.pytestmark[0].args[1]
  assert {size for size, _ in tested} == {*GEMMA_SIZES}


def test_layer_patterns():
  kinds = GEMMA_SIZES['gemma2_2b'].layer_kinds
  assert kinds[:4] == (LOCAL, GLOBAL, LOCAL, GLOBAL)
  kinds = GEMMA_SIZES['gemma3_1b'].layer_kinds
  assert [i for i, kind in enumerate(kinds) if kind == GLOBAL] == [
    5,
    11,
    17,
    23,
  ]


@pytest.mark.parametrize(
  ('size', 'millions', 'tokens'),
  [
    ('b16_224', 85.8, 196),
    ('b16_256', 85.8, 256),
    ('l16_256', 303.4, 256),
    ('so400m14_224', 412.4, 256),
    ('so400m16_256', 412.7, 256),
    ('tiny', 0.8, 16),
  ],
)
def test_siglip_sizes(size, millions, tokens):
  config = SIGLIP_SIZES[size]
  assert config.tokens == tokens
  counts = count(lambda: Siglip(config, rngs=nnx.Rngs(0)))
  assert sum(counts.values()) / 1e6 == pytest.approx(millions, abs=0.06)
