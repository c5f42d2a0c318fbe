"""Axis: one model for all tasks, or one for each side.

Question: UniFluid finds that training both jointly improves generation over a
model that only generates, and keeps understanding level with a model that only
understands. Tasks: `unified`, `generation` (text to image, editing),
`understanding` (captioning, question answering). A single-sided model sees as
many examples a step as the unified one sees of its tasks.

    for t in unified generation understanding; do
      bash launch/quickstart.sh \
        experiments/ablation_tasks.py:tasks=$t runs/tasks_$t
    done
"""

import ml_collections

from experiments import arguments, quickstart

SIDES = {
  'unified': ('text_to_image', 'editing', 'captioning', 'vqa'),
  'generation': ('text_to_image', 'editing'),
  'understanding': ('captioning', 'vqa'),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The quickstart with `tasks=unified|generation|understanding`."""
  values, is_tiny = arguments.parse(arg, {'tasks': SIDES}, tasks='unified')
  config = quickstart.get_config()
  sources, side = config.data.sources, values['tasks']
  kept = {
    name: source
    for name, source in sources.items()
    if source.task in SIDES[side]
  }
  share = sum(source.weight for source in kept.values())
  share /= sum(source.weight for source in sources.values())
  config.data.sources = kept
  config.data.examples = round(share * config.data.examples)
  return arguments.finish(config, is_tiny)
