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
    'random': ('causal', 'random', None),
    'raster': ('causal', 'raster', None),
    'anneal': ('causal', 'anneal', (steps // 2, steps)),
    'masked': ('masked', 'random', None),
  }
  values, is_tiny = arguments.parse(arg, {'order': orders}, order='random')
  decoding, order, anneal_steps = orders[values['order']]
  config.model.decoding = decoding
  config.training.update(order=order, anneal_steps=anneal_steps)
  return arguments.finish(config, is_tiny)
