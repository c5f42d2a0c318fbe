"""Axis: the language model starts from scratch, or from a trained one.

Question: UniFluid finds that a stronger pretrained language model gives better
images and better understanding. Start: `scratch`, or `pretrained`, which takes
the decoder of another run (`init.workdir`), here of one that has learnt the
tasks' texts by understanding alone:

    bash launch/quickstart.sh \
      experiments/ablation_tasks.py:tasks=understanding runs/understanding
    bash launch/quickstart.sh \
      experiments/ablation_language_model.py:start=pretrained runs/pretrained
"""

import ml_collections

from experiments import arguments, quickstart, unifluid_2b


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The quickstart with `start=scratch|pretrained`, `source=WORKDIR`."""
  values, is_tiny = arguments.parse(
    arg,
    {'start': ('scratch', 'pretrained')},
    start='pretrained',
    source='runs/understanding',
  )
  config = quickstart.get_config()
  if values['start'] == 'pretrained':
    config.init = {
      'workdir': values['source'],
      'parameters': ('^gemma/',),
      'new': ('^encoder/', *unifluid_2b.NEW),
    }
  return arguments.finish(config, is_tiny)
