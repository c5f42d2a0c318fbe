"""The features against a plain PyTorch forward of the same weights."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from unifluid_jax.evaluation import feature_network

# Kernel, stride, and number of blocks of each stage, from the paper's table 1.
STAGES = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4)]
STAGES += [(3, 1, 1)]


def reference(weights, pixels):
  """Runs the network in PyTorch, with its own convolutions and norms."""

  def norm(name, x):
    return functional.batch_norm(
      x,
      *(weights[f'{name}.running_{part}'] for part in ('mean', 'var')),
      weights[f'{name}.weight'],
      weights[f'{name}.bias'],
      eps=1e-3,
    )

  def convolve(name, x, stride=1):
    weight = weights[f'{name}.weight']
    kernel, side = weight.shape[-1], x.shape[-1]
    pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    x = functional.pad(x, [pad // 2, pad - pad // 2] * 2)
    groups = x.shape[1] // weight.shape[1]
    return functional.conv2d(x, weight, stride=stride, groups=groups)

  x = functional.relu6(norm('_bn0', convolve('_conv_stem', pixels, 2)))
  block = 0
  for _, stride, count in STAGES:
    for i in range(count):
      name, inputs = f'_blocks.{block}', x
      if f'{name}._expand_conv.weight' in weights:
        x = convolve(f'{name}._expand_conv', x)
        x = functional.relu6(norm(f'{name}._bn0', x))
      x = convolve(f'{name}._depthwise_conv', x, 1 if i else stride)
      x = functional.relu6(norm(f'{name}._bn1', x))
      x = norm(f'{name}._bn2', convolve(f'{name}._project_conv', x))
      x = x + inputs if i else x
      block += 1
  x = functional.relu6(norm('_bn1', convolve('_conv_head', x)))
  return x.mean((2, 3))


@pytest.mark.parametrize('side', [128, 96, 65])
def test_features_are_those_of_pytorch(side):
  weights = feature_network.load_weights()
  pixels = np.random.default_rng(side).uniform(-1, 1, (2, side, side, 3))
  pixels = pixels.astype(np.float32)
  ours = feature_network.pooled_features(weights, jnp.asarray(pixels))
  tensors = {name: torch.tensor(np.array(w)) for name, w in weights.items()}
  expected = reference(tensors, torch.tensor(pixels.transpose(0, 3, 1, 2)))
  assert ours.shape == (2, feature_network.DIM)
  assert np.abs(expected).max() > 1
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_images_of_any_number_and_size(monkeypatch):
  monkeypatch.setattr(feature_network, '_BATCH', 2)
  images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
  together = feature_network.features(images, 'images')
  assert together.shape == (3, feature_network.DIM)
  alone = feature_network.features(images[2:], 'images')
  np.testing.assert_allclose(together[2:], alone, atol=1e-5)


def test_the_extra_is_looked_for(monkeypatch):
  assert feature_network.is_installed()
  monkeypatch.setattr(feature_network, 'PACKAGE', 'no_such_package')
  assert not feature_network.is_installed()
