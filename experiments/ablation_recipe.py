"""Axis: the recipe, on a sample of the night run's concepts.

Question: which rate, batch, update rule and weights draw the most concepts
after as many images? The concepts are a sample of night's, so that an arm takes
minutes; flags set what an arm changes, and ablation arms share the VAE.

    bash launch/quickstart.sh experiments/ablation_recipe.py runs/recipe_base
    bash launch/quickstart.sh experiments/ablation_recipe.py runs/recipe_muon \\
      --config.optimizer.rule=muon
"""

import ml_collections

from experiments import arguments, night


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """Night's config with `concepts=` of a sample and `steps=`."""
  values, is_tiny = arguments.parse(
    arg,
    {'concepts': ('untoned_130', 'untoned_290', 'untoned')},
    concepts='untoned_130',
    steps=1500,
  )
  config = night.get_config()
  config.data.concepts = values['concepts']
  config.training.steps = values['steps']
  config.evaluation.prompts = 300
  return arguments.finish(config, is_tiny)
