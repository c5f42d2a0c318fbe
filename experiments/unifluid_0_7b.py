"""UniFluid 0.7B: the 2B recipe with a Gemma-2-shaped decoder of 744 M.

The shape is the one that DeepMind's code calls GEMMA2_ML; no checkpoint of it
is public as a decoder, so it starts fresh. See unifluid_2b.py for all else.
"""

import ml_collections

from experiments import arguments, unifluid_2b
from unifluid_jax.config import builder as config_lib
from unifluid_jax.models import sizes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The recipe; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = unifluid_2b.get_config()
  config.model.gemma = config_lib.to_dict(sizes.GEMMA_SIZES['gemma2_0.7b'])
  config.model.head.update(width=1024)
  config.init.update(backbone='', new=('^gemma/', *unifluid_2b.NEW))
  return arguments.finish(config, is_tiny)
