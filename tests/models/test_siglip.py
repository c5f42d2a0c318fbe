"""SigLIP's encoder against transformers' eager model."""

import functools

import hf_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.siglip import SiglipVisionConfig, SiglipVisionModel

from unifluid_jax.models import parameters
from unifluid_jax.models.siglip import Siglip, SiglipConfig
from unifluid_jax.utils.errors import UserError

CONFIGS = {
  'three heads': SiglipConfig(
    image_size=21,
    patch_size=7,
    width=24,
    layers=3,
    heads=3,
    mlp_dim=40,
  ),
  'one layer': SiglipConfig(
    image_size=16,
    patch_size=4,
    width=20,
    layers=1,
    heads=2,
    mlp_dim=33,
    norm_eps=1e-3,
  ),
}


@functools.cache
def make_pair(case: str) -> tuple[torch.nn.Module, Siglip]:
  """The same random weights in transformers and in our model."""
  config = CONFIGS[case]
  torch.manual_seed(0)
  hf = SiglipVisionModel(
    SiglipVisionConfig(
      image_size=config.image_size,
      patch_size=config.patch_size,
      hidden_size=config.width,
      num_hidden_layers=config.layers,
      num_attention_heads=config.heads,
      intermediate_size=config.mlp_dim,
      layer_norm_eps=config.norm_eps,
      attn_implementation='eager',
    )
  ).eval()
  with torch.no_grad():
    for parameter in hf.parameters():
      parameter.normal_(0, 1.5 * config.width**-0.5)
  return hf, from_values(config, hf_weights.import_weights(hf, 'encoder'))


def from_values(
  config: SiglipConfig, values: dict[str, np.ndarray], **kwargs
) -> Siglip:
  """A model of these parameters, which must be all of them."""
  model = nnx.eval_shape(lambda: Siglip(config, rngs=nnx.Rngs(0), **kwargs))
  graphdef, state = nnx.split(model)
  assert {name: value.shape for name, value in values.items()} == {
    '/'.join(path): leaf.shape for path, leaf in nnx.to_flat_state(state)
  }
  return parameters.unflatten(graphdef, jax.tree.map(jnp.asarray, values))


def remake(model: Siglip, **kwargs) -> Siglip:
  """The same parameters in a model made with other arguments."""
  return from_values(model.config, parameters.flatten(model)[1], **kwargs)


@nnx.jit
def run(model, images):
  return model(images)


def make_images(config: SiglipConfig) -> np.ndarray:
  rng = np.random.default_rng(0)
  side = config.image_size
  return rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize('case', CONFIGS)
def test_features_equal_transformers(case):
  hf, model = make_pair(case)
  images = make_images(model.config)
  with torch.no_grad():
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    expected = hf(pixel_values=pixels).last_hidden_state.numpy()
  features = run(model, jnp.asarray(images))
  assert features.shape == (2, model.config.tokens, model.config.width)
  error = np.abs(features - expected).max() / np.abs(expected).max()
  assert error < 1e-5


def test_bfloat16_stays_near_float32():
  _, model = make_pair('three heads')
  images = jnp.asarray(make_images(model.config))
  expected = run(model, images)
  half = run(remake(model, dtype=jnp.bfloat16), images)
  assert half.dtype == jnp.bfloat16
  error = jnp.sqrt(jnp.mean((half - expected) ** 2) / jnp.mean(expected**2))
  assert error < 0.02


def test_unroll_and_remat_do_not_change_gradients():
  _, model = make_pair('three heads')
  images = jnp.asarray(make_images(model.config))

  def gradients(model):
    graphdef, values = parameters.flatten(model)

    def loss(values):
      return jnp.mean(jnp.sin(parameters.unflatten(graphdef, values)(images)))

    return jax.jit(jax.grad(loss))(values)

  expected = gradients(model)
  for name, value in gradients(remake(model, unroll=3, remat='full')).items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-7)


def test_wrong_sizes_are_told():
  kwargs = {'patch_size': 7, 'width': 24, 'layers': 1, 'mlp_dim': 8}
  with pytest.raises(UserError, match='6 is less than its patch_size 7'):
    SiglipConfig(image_size=6, heads=3, **kwargs)
  with pytest.raises(UserError, match='24 is not a multiple of heads 5'):
    SiglipConfig(image_size=21, heads=5, **kwargs)
  _, model = make_pair('one layer')
  with pytest.raises(UserError, match='images of 20 px'):
    model(jnp.zeros((1, 20, 20, 3)))
