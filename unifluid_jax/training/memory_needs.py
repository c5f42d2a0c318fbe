"""Rejects a training that cannot fit, before it fills the memory.

The figures are lower bounds: what a step holds at the very least. A config that
passes may still be too large; one that is refused cannot run.
"""

import jax

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.packing import AUTO
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig


def vae_needs(experiment: Experiment) -> dict[str, int]:
  """Bytes that a step of the VAE's training holds at least."""
  vae, batch = experiment.vae, experiment.vae_training.batch
  size = experiment.data.image_size
  grid = size // vae.patch_size
  lowest = (size // vae.stride) ** 2
  blocks = vae.encoder_blocks + vae.decoder_blocks
  kernels = sum(9 * width**2 * blocks for width in vae.widths)
  return {
    'vae_training.batch of data.image_size': 4 * 3 * batch * size**2,
    'what vae.widths make of it': 2 * batch * grid**2 * vae.widths[0],
    'vae.mid_attention': 2 * batch * lowest**2 * vae.mid_attention,
    'what is trained (vae)': 12 * kernels,
  }


def unifluid_needs(experiment: Experiment) -> dict[str, int]:
  """Bytes that a step of UniFluid's training holds at least."""
  data, model = experiment.data, experiment.model
  gemma, encoder, head = model.gemma, model.encoder, model.head
  frozen = bool(experiment.init.frozen)
  # Parameters, two moments and the average in float32. Of frozen ones, which
  # may be in half precision, there are no more.
  each = 2 if frozen else 16
  rows = -(-data.batch_rows // experiment.training.grad_accum_steps)
  length = 0 if data.row_capacity.length == AUTO else data.row_capacity.length
  slots = rows * length
  images = data.batch_rows * (
    data.row_capacity.generated_images + data.row_capacity.source_images
  )
  read = data.batch_rows * data.row_capacity.understanding_images
  pixels = images * data.image_size**2 + read * encoder.image_size**2
  needs = {
    'data.batch_rows of images': 3 * pixels,
    'data.examples of data.image_size': 3 * data.examples * data.image_size**2,
    'model.gemma': each * _gemma_parameters(gemma),
    'model.encoder': each * _encoder_parameters(encoder),
    'model.head': each * 5 * head.width**2 * head.depth,
    # Without gradients of the decoder nothing is kept of its layers.
    'data.batch_rows of data.row_capacity.length': 2
    * slots
    * gemma.width
    * (1 if frozen else gemma.layers),
  }
  if jax.default_backend() != 'tpu':  # which attends in blocks
    scores = 4 * slots * length * gemma.heads
    needs['attention over data.row_capacity.length'] = scores
  return needs


def _gemma_parameters(config: GemmaConfig) -> int:
  heads = config.head_dim * 2 * (config.heads + config.kv_heads)
  layer = config.width * (heads + 3 * config.mlp_dim)
  return layer * config.layers + config.vocab_size * config.width


def _encoder_parameters(config: SiglipConfig) -> int:
  layer = config.width * 2 * (2 * config.width + config.mlp_dim)
  return layer * config.layers
