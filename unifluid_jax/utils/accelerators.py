"""Prevents loading libtpu on machines without a TPU."""

import glob
import importlib.metadata
import importlib.util
import os

import jax

_QUIET = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_STDERR_LOG_LEVEL': '3',
}
"""What libtpu would otherwise look for and complain about."""

_CHOICES = ('JAX_FORCE_TPU_INIT', 'PJRT_NAMES_AND_LIBRARY_PATHS')
"""Variables by which users choose what JAX runs on, besides JAX_PLATFORMS."""


def ignore_absent_tpu() -> None:
  """Makes JAX use the CPU on machines without an accelerator.

  The `plan` extra installs libtpu, which JAX loads and asks for TPUs wherever
  it finds it. On a machine without a TPU it prints a dozen lines to standard
  error, takes a second and locks a file. Call this before JAX makes its
  devices; it changes nothing on a machine with a TPU, or where the user has
  chosen the platforms.
  """
  chosen = getattr(jax.config, 'jax_platforms', None) is not None
  if chosen or any(name in os.environ for name in _CHOICES) or has_tpu():
    return
  if _has_plugins():
    for name, value in _QUIET.items():
      os.environ.setdefault(name, value)
  else:
    jax.config.update('jax_platforms', 'cpu')


def has_tpu() -> bool:
  """Whether this machine has a TPU, by its devices."""
  # JAX has no public name for it. Imported here, so that importing this
  # package touches nothing private.
  from jax._src import hardware_utils

  chips, _ = hardware_utils.num_available_tpu_chips_and_device_id()
  devices = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
  return chips > 0 or bool(devices)


def _has_plugins() -> bool:
  """Whether JAX may have other accelerators, such as CUDA's plugin."""
  return (
    importlib.util.find_spec('jax_plugins') is not None
    or len(importlib.metadata.entry_points(group='jax_plugins')) > 0
  )
