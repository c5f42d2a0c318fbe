"""A very small VAE with a patch stem, shared by the tests."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unifluid_jax.models.vae import VAE, VAEConfig

CONFIG = VAEConfig(
  latent_channels=6,
  widths=(8,),
  encoder_blocks=0,
  decoder_blocks=1,
  groups=4,
  patch_size=4,
  mid_attention=False,
  quant_convs=False,
)


def abstract_vae(config: VAEConfig) -> VAE:
  """The model without arrays."""
  return nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))


def make_vae(config: VAEConfig = CONFIG) -> VAE:
  """A model with random parameters, made without compiling anything."""
  graphdef, state = nnx.split(abstract_vae(config))
  rng = np.random.default_rng(0)
  return nnx.merge(
    graphdef,
    jax.tree.map(
      lambda leaf: jnp.asarray(
        0.3 * rng.standard_normal(leaf.shape), jnp.float32
      ),
      state,
    ),
  )
