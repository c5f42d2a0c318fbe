"""Refuses a training that cannot fit, before it fills the memory.

The figures are lower bounds: what a step holds at the very least. A config that
passes may still be too large; one that is refused cannot run.
"""

import math
import os
import pathlib

import jax

from unifluid_jax.config import AUTO
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment

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
  listed = ', '.join(f'{what} takes {_gib(size)}' for what, size in largest)
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
  kernels = sum(
    9 * width**2 * (vae.encoder_blocks + vae.decoder_blocks)
    for width in vae.widths
  )
  return {
    'the images (vae_training.batch, data.image_size)': 4 * 3 * batch * size**2,
    'their activations (vae.widths)': 2 * batch * grid**2 * vae.widths[0],
    'the parameters (vae.widths, vae.*_blocks)': 12 * kernels,
  }


def unifluid_needs(experiment: Experiment) -> dict[str, int]:
  """Bytes that a step of UniFluid's training holds at least."""
  data, model, row = experiment.data, experiment.model, experiment.data.row
  gemma, encoder, head = model.gemma, model.encoder, model.head
  # Parameters, two moments and the average in float32; frozen ones may be in
  # half precision, and which they are is for the names to say.
  each = 2 if experiment.init.frozen else 16
  attention = gemma.head_dim * (2 * gemma.heads + 2 * gemma.kv_heads)
  decoder = gemma.width * (attention + 3 * gemma.mlp_dim) * gemma.layers
  image_encoder = encoder.width * 2 * (2 * encoder.width + encoder.mlp_dim)
  rows = -(-data.rows // experiment.training.accumulate)
  length = 0 if row.length == AUTO else row.length
  written = row.generated_images + row.source_images
  pixels = written * data.image_size**2
  pixels += row.understanding_images * encoder.image_size**2
  patches = rows * row.understanding_images * encoder.tokens
  return {
    'the images (data.rows, data.row, data.image_size)': 3 * data.rows * pixels,
    'the examples (data.examples, data.image_size)': 3
    * data.examples
    * data.image_size**2,
    'the decoder (model.gemma)': each
    * (decoder + gemma.vocab_size * gemma.width),
    'the image encoder (model.encoder)': each * image_encoder * encoder.layers,
    'the diffusion head (model.head)': each * 5 * head.width**2 * head.depth,
    'activations (data.rows, data.row.length, model.gemma)': 2
    * rows
    * length
    * gemma.width
    * gemma.layers,
    'activations (data.rows, data.row, model.encoder)': 2
    * patches
    * encoder.width,
  }


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
