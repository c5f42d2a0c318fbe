"""config.evaluation: what a run is evaluated on."""

import dataclasses
from collections.abc import Mapping

from unifluid_jax.utils.errors import (
  check_between,
  check_least,
  check_most,
)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What is drawn from the splits of the data to evaluate a run.

  A split that has more than the most is drawn from, without replacement. Of a
  user's own data, each prompt gets one image.

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
    check_between('evaluation', self, 0, 2**32, 'seed')
    counts = ('samples', 'prompts', 'captions', 'questions', 'edits')
    check_least('evaluation', self, 1, *counts)
    check_most('evaluation', self, 2**20, *counts)
