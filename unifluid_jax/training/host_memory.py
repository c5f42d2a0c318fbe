"""Refuses a training that cannot fit, before it fills the memory.

The figures are lower bounds: what a step holds at the very least. A config that
passes may still be too large; one that is refused cannot run.
"""

import math
import os
import pathlib

import jax

from unifluid_jax.config.builder import AUTO
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.models.gemma import GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.utils.errors import UserError

_GIB = 2**30


def check_memory(needs: dict[str, int], of: str) -> None:
  """Compares what is needed with what the devices of all processes have.

  Args:
    needs: Bytes, by what takes them and the keys that set it.
    of: What needs them, for the message.

  Raises:
    UserError: They have less.
  """
  _compare(needs, of, _device_bytes())


def check_host_memory(needs: dict[str, int], of: str) -> None:
  """Compares what is needed with what this machine has.

  Args:
    needs: Bytes, by what takes them and what sets it.
    of: What needs them, for the message.

  Raises:
    UserError: It has less.
  """
  _compare(needs, of, _host_bytes())


def _compare(needs: dict[str, int], of: str, room: float) -> None:
  total = sum(needs.values())
  if total <= room:
    return
  largest = sorted(needs.items(), key=lambda item: -item[1])[:3]
  listed = ', '.join(
    f'{what} takes {_gib(size)}'
    for what, size in largest
    if size > 0.01 * total
  )
  raise UserError(
    f'{of} needs at least {_gib(total)} of memory, and there are '
    f'{_gib(room)}: {listed}'
  )


def _gib(size: float) -> str:
  return f'{size / _GIB:,.1f} GiB'


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


def _device_bytes() -> float:
  """Memory of the devices of all processes; infinite where it is unknown."""
  local = jax.local_devices()
  if local[0].platform == 'cpu':
    return _host_bytes() * jax.process_count()
  limits = [
    (device.memory_stats() or {}).get('bytes_limit', math.inf)
    for device in local
  ]
  return sum(limits) * jax.process_count()


def _host_bytes() -> float:
  """Memory of this machine, or of the container that this runs in."""
  room: float = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')
  try:
    text = limit.read_text(encoding='ascii').strip()
  except OSError:  # Not of Linux, or of an older one.
    return room
  return min(room, int(text)) if text.isdecimal() else room
