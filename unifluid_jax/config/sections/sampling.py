"""config.sampling, edit_sampling and text_sampling: how samples are drawn."""

import dataclasses
import math

from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.utils.errors import (
  UserError,
  check_least,
  check_most,
)

MAX_TEMPERATURE = 100.0


MAX_GUIDANCE = 1000.0
"""Bounds far beyond any use; above them float32 overflows in the head."""


@dataclasses.dataclass(frozen=True)
class ImageSamplingConfig:
  """How images are sampled.

  Attributes:
    steps: Decoding steps of an image; None for one step per token.
    solver: Diffusion solver of the head.
    head_steps: Steps of that solver.
    guidance: Classifier-free guidance.
    temperature: Scale of the noise, see `diffusion.solvers`.
  """

  steps: int | None = None
  solver: str = 'heun'
  head_steps: int = 10
  guidance: Guidance = Guidance()
  temperature: float = 1.0

  def __post_init__(self):
    check_most('sampling', self, 2**14, 'head_steps')
    scale = self.guidance.scale
    if not 0 <= self.temperature <= MAX_TEMPERATURE:
      raise UserError(
        f'image sampling with temperature {self.temperature}; it must be in '
        f'0..{MAX_TEMPERATURE:g}'
      )
    if not abs(scale) <= MAX_GUIDANCE:
      raise UserError(
        f'image sampling with guidance scale {scale}; it must be in '
        f'{-MAX_GUIDANCE:g}..{MAX_GUIDANCE:g}'
      )


@dataclasses.dataclass(frozen=True)
class TextSamplingConfig:
  """How texts are sampled.

  Attributes:
    max_tokens: Longest text, in tokens.
    temperature: Divides the logits; 0 is greedy.
    top_k: Keeps the k most likely tokens; 0 keeps all.
    top_p: Keeps the most likely tokens whose probabilities sum to p (nucleus
      sampling, Holtzman et al., arXiv 1904.09751).
  """

  max_tokens: int = 32
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    check_least('text_sampling', self, 1, 'max_tokens')
    check_most('text_sampling', self, 2**16, 'max_tokens')
    if (
      not 0 <= self.temperature < math.inf
      or self.top_k < 0
      or not 0 < self.top_p <= 1
    ):
      raise UserError(
        f'text sampling with temperature {self.temperature}, top_k '
        f'{self.top_k}, top_p {self.top_p}: temperature and top_k must be '
        'finite and not negative, and 0 < top_p <= 1'
      )
