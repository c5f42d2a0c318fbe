"""UniFluid in JAX: one transformer that reads and writes text and images."""

from unifluid_jax.utils.process_exit import set_up_leaving

__version__ = '0.1.0'

set_up_leaving()
