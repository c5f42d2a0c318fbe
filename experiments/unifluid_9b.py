"""UniFluid 9B: the 2B recipe with Gemma-2 9B, the next step after the paper.

The paper stops at 2B. Batch, steps, resolution and learning rate are its own;
the head is wider. See unifluid_2b.py for all else, plans/README.md for what it
needs.
"""

import ml_collections

from experiments import arguments, unifluid_2b
from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The recipe; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = unifluid_2b.get_config()
  config.model.gemma = config_lib.to_dict(sizes.GEMMA_SIZES['gemma2_9b'])
  config.model.head.update(width=2048)
  config.init.backbone = 'weights/gemma-2-9b'
  return arguments.finish(config, is_tiny)
