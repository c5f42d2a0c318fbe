"""Names and shapes of our parameters, without making them."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import Gemma, GemmaConfig
from unifluid_jax.models.siglip import Siglip, SiglipConfig
from unifluid_jax.models.vae import VAE, VAEConfig

Config = GemmaConfig | SiglipConfig | VAEConfig
"""Shape of a part of the model."""

_MODELS: Mapping[type, Any] = {
  GemmaConfig: Gemma,
  SiglipConfig: Siglip,
  VAEConfig: VAE,
}


@functools.cache
def shapes(config: Config) -> dict[str, tuple[int, ...]]:
  """Shape of each parameter of the model that a config describes."""
  make = _MODELS[type(config)]
  model = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0)))
  return jax.tree.map(lambda leaf: leaf.shape, parameters.flatten(model)[1])
