"""Axis: the loss balance weight lambda (`training.text_weight`).

Question: UniFluid finds that the weight decides whether generation and
understanding help or hurt each other. Is there a weight at which a small joint
model is as good as one for each task alone (see ablation_tasks.py)?

    for w in 0.01 0.03 0.1 0.3 1.0; do
      bash launch/quickstart.sh \
        experiments/ablation_lambda.py:text_weight=$w runs/lambda_$w
    done
"""

import ml_collections

from experiments import arguments, quickstart


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The quickstart with `text_weight=FLOAT`."""
  values, is_tiny = arguments.parse(arg, text_weight=1.0)
  config = quickstart.get_config()
  config.training.text_weight = values['text_weight']
  # The log then tells both tasks' gradient norms, too.
  config.training.balance_every = 100
  return arguments.finish(config, is_tiny)
