"""Axis: the order in which an image's tokens are written.

Question: UniFluid finds random order necessary for good images. Orders:

    random   causal, a new permutation for each image (the default)
    raster   causal, always row by row
    anneal   causal, from random to raster in the second half of the run
    masked   masked prediction, bidirectional inside the image, as in MAR

    for o in random raster anneal masked; do
      bash launch/quickstart.sh \
        experiments/ablation_order.py:order=$o runs/order_$o
    done
"""

import ml_collections

from experiments import arguments, quickstart


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The quickstart with `order=random|raster|anneal|masked`."""
  config = quickstart.get_config()
  steps = config.training.steps
  orders = {
    'random': ('causal', None),
    'raster': ('causal', (0, 0)),
    'anneal': ('causal', (steps // 2, steps)),
    'masked': ('masked', None),
  }
  values, is_tiny = arguments.parse(arg, {'order': orders}, order='random')
  config.model.order, config.training.anneal = orders[values['order']]
  return arguments.finish(config, is_tiny)
