"""How much is looked at when a run is evaluated."""

import dataclasses
from collections.abc import Mapping

from unifluid_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What is drawn from the splits of the embedded data.

  A split that has more than the most is drawn from, without replacement.

  Attributes:
    seed: Of every draw and of all sampling.
    samples: Images for each held-out prompt; a training prompt gets one.
    prompts: Most prompts of a split.
    captions: Most images of a split that are captioned.
    questions: Most questions of a type.
    edits: Most pairs of image and edit.
    targets: What a measure should reach, by the measure's name.
  """

  seed: int = 0
  samples: int = 16
  prompts: int = 1000
  captions: int = 400
  questions: int = 200
  edits: int = 300
  targets: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ('samples', 'prompts', 'captions', 'questions', 'edits'):
      if getattr(self, name) < 1:
        raise UserError(
          f'evaluation.{name} is {getattr(self, name)}; it must be at least 1'
        )
