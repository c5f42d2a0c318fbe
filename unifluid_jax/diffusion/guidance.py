"""Classifier-free guidance of the diffusion head.

Ho and Salimans (2022, arXiv 2207.12598): eps = eps_u + w (eps_c - eps_u), and
likewise for velocities.

Legend: n tokens, Z channels of a token, O output channels.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from unifluid_jax.diffusion.objectives import TIME_SCALE, Predict
from unifluid_jax.utils.errors import UserError

SCHEDULES = ('constant', 'linear')


@dataclasses.dataclass(frozen=True)
class Guidance:
  """Strength of the guidance.

  Attributes:
    scale: The weight w; at 1 only the conditional prediction counts.
    schedule: 'constant', or 'linear' from 1 to the scale over an image (MAR).
    interval: Lowest and highest diffusion time that is guided, as fractions
      of the time of pure noise (Kynkäänniemi et al., 2024, arXiv 2404.07724).
  """

  scale: float = 1.0
  schedule: str = 'constant'
  interval: tuple[float, float] = (0.0, 1.0)

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise UserError(
        f'guidance schedule {self.schedule!r} is unknown; use one of '
        f'{SCHEDULES}'
      )
    low, high = self.interval
    if not 0 <= low <= high <= 1:
      raise UserError(
        f'guidance interval {self.interval} must be two ascending fractions '
        'within 0 and 1'
      )

  def scale_at(
    self, fraction: Float[Array, '*n'] | float
  ) -> Float[Array, '*n'] | float:
    """Returns the weight once this fraction of an image's tokens is decoded.

    MAR counts the tokens of the current decoding step as decoded.
    """
    if self.schedule == 'constant':
      return self.scale
    return 1 + (self.scale - 1) * fraction

  def guide(
    self, predict: Predict, fraction: Float[Array, '*n'] | float
  ) -> Predict:
    """Applies `guided` with this weight and interval."""
    return guided(predict, self.scale_at(fraction), self.interval)


def guided(
  predict: Predict,
  scale: Float[Array, '*n'] | float,
  interval: tuple[float, float] = (0.0, 1.0),
) -> Predict:
  """Guides a head that predicts n tokens both with and without condition.

  Args:
    predict: The head on 2n rows, the n conditional ones first.
    scale: The weight w, one for all tokens or one for each [n].
    interval: Diffusion times outside of which w is 1, see `Guidance`.

  Returns:
    A head on n rows. Its variance logits are the conditional ones.
  """
  low, high = interval

  def predict_guided(
    x_t: Float[Array, 'n Z'], time: Float[Array, ' n']
  ) -> Float[Array, 'n O']:
    both = predict(jnp.concatenate([x_t, x_t]), jnp.concatenate([time, time]))
    conditional, unconditional = jnp.split(both, 2)
    inside = (time >= low * TIME_SCALE) & (time <= high * TIME_SCALE)
    extra = jnp.where(inside, scale - 1, 0.0)[:, None]
    change = extra * (conditional - unconditional)
    return conditional.at[:, : x_t.shape[1]].add(change[:, : x_t.shape[1]])

  return predict_guided
