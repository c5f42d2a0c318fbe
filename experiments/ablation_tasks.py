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

from experiments import arguments, quickstart, tiny

SIDES = {
  'unified': ('text_to_image', 'editing', 'captioning', 'vqa'),
  'generation': ('text_to_image', 'editing'),
  'understanding': ('captioning', 'vqa'),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The quickstart with `tasks=unified|generation|understanding`."""
  values, is_tiny = arguments.parse(arg, tasks='unified')
  config = quickstart.get_config()
  sources, kept = config.data.sources, SIDES[values['tasks']]
  share = sum(sources[task].weight for task in kept)
  share /= sum(source.weight for source in sources.values())
  config.data.sources = {task: sources[task] for task in kept}
  config.data.examples = round(share * config.data.examples)
  return tiny.shrink(config) if is_tiny else config
