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
  """How much of each split an evaluation uses.

  Larger splits are subsampled without replacement. Prompts of a user's own data
  get one image each.

  Attributes:
    seed: Seed of all subsampling and sampling.
    samples: Images for each held-out prompt; a training prompt gets one.
    prompts: Largest number of prompts of a split.
    captions: Largest number of captioned images of a split.
    questions: Largest number of questions of a type.
    edits: Largest number of pairs of image and edit.
    targets: Goals by name of the metric.
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
