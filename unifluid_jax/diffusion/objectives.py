"""Objectives of the diffusion head: its target, loss and noise levels.

Both objectives noise a clean token as x_t = alpha x_0 + sigma eps and use the
head as a function `predict(x_t, time) -> output`. Time runs from 0 (data) to
1000 (noise) in both, so the head does not depend on the objective.

Legend: n tokens, Z channels of a token, O output channels, S solver steps.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from unifluid_jax.diffusion import chain as markov
from unifluid_jax.utils.errors import UserError

Predict = Callable[[Array, Array], Array]
"""(x_t [n Z], time [n]) -> output [n O]."""

TIME_SCALE = markov.TIMESTEPS
"""Time of pure noise."""


class Steps(NamedTuple):
  """The steps of a solver from noise to data, or one of them.

  Attributes:
    time: Time at the start of the step.
    alpha: Signal at `time`.
    sigma: Noise at `time`.
    next_time: Time at the end of the step, 0 for the last.
    next_alpha: Signal at `next_time`, 1 for the last.
    next_sigma: Noise at `next_time`, 0 for the last.
  """

  time: Float[Array, '*S']
  alpha: Float[Array, '*S']
  sigma: Float[Array, '*S']
  next_time: Float[Array, '*S']
  next_alpha: Float[Array, '*S']
  next_sigma: Float[Array, '*S']


class Noise(NamedTuple):
  """The random draws of the loss of n tokens.

  Attributes:
    level: Noise level of each token, in the objective's unit.
    eps: Standard normal numbers.
  """

  level: Float[Array, '*n'] | Int[Array, '*n']
  eps: Float[Array, '*n Z']


class Objective(abc.ABC):
  """A target of the head and its loss.

  Attributes:
    most_steps: Largest number of steps of a deterministic solver.
  """

  most_steps: ClassVar[float] = math.inf

  @abc.abstractmethod
  def output_channels(self, token_dim: int) -> int:
    """Output channels of the head for tokens of `token_dim` channels."""

  @abc.abstractmethod
  def draw_levels(
    self, key: PRNGKeyArray, count: int
  ) -> Float[Array, ' n'] | Int[Array, ' n']:
    """Draws noise levels for `count` tokens, in the objective's unit."""

  def draw(self, key: PRNGKeyArray, count: int, channels: int) -> Noise:
    """Draws noise for the loss of `count` tokens."""
    level_key, eps_key = jax.random.split(key)
    eps = jax.random.normal(eps_key, (count, channels))
    return Noise(self.draw_levels(level_key, count), eps)

  @abc.abstractmethod
  def loss(
    self, predict: Predict, x_0: Float[Array, 'n Z'], noise: Noise
  ) -> Float[Array, ' n']:
    """Computes the loss of each token at its noise level, a mean over channels.

    Args:
      predict: The head, bound to the conditions of the n tokens.
      x_0: Clean tokens.
      noise: Result of `draw`.
    """

  @abc.abstractmethod
  def steps(self, count: int) -> Steps:
    """Returns `count` evenly spaced steps for a deterministic solver."""

  @abc.abstractmethod
  def denoise(
    self,
    output: Float[Array, 'n O'],
    x_t: Float[Array, 'n Z'],
    alpha: Float[Array, ''],
    sigma: Float[Array, ''],
  ) -> tuple[Float[Array, 'n Z'], Float[Array, 'n Z']]:
    """Returns the clean tokens and the noise that the head predicts."""


@dataclasses.dataclass(frozen=True)
class Ddpm(Objective):
  """Noise prediction with a learned variance (MAR, Fluid).

  The output is eps and the variance logits. The first learns by a squared
  error; the second by the variational bound in bits, where eps is a constant.
  """

  most_steps = markov.FIRST_TIMESTEP

  def output_channels(self, token_dim: int) -> int:
    """Twice the token's: eps and variance logits."""
    return 2 * token_dim

  def draw_levels(self, key: PRNGKeyArray, count: int) -> Int[Array, ' n']:
    """Uniform timesteps of the training chain."""
    return jax.random.randint(key, (count,), 0, markov.TIMESTEPS)

  def loss(
    self, predict: Predict, x_0: Float[Array, 'n Z'], noise: Noise
  ) -> Float[Array, ' n']:
    """Squared error plus variational bound."""
    x_0 = x_0.astype(jnp.float32)
    t, eps = noise
    level = _levels(t)
    x_t = level.alpha * x_0 + level.sigma * eps
    output = predict(x_t, t.astype(jnp.float32))
    eps_hat, logits = jnp.split(output, 2, axis=-1)
    difference = eps - eps_hat
    bound = _bound(x_0, jax.lax.stop_gradient(difference), logits, t)
    return jnp.mean(difference**2 + bound, axis=-1)

  def steps(self, count: int) -> Steps:
    """Between timesteps of the training chain, the last one to the data.

    It leaves timestep 0 out: little noise is left there (sigma is 0.006), so a
    step from it does nothing, and the one to it is long in log(alpha / sigma).
    """
    t = markov.spaced_timesteps(count, with_0=False)
    alpha_bar = markov.cosine_alpha_bar()[t]
    return _make_steps(t, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))

  def denoise(
    self,
    output: Float[Array, 'n O'],
    x_t: Float[Array, 'n Z'],
    alpha: Float[Array, ''],
    sigma: Float[Array, ''],
  ) -> tuple[Float[Array, 'n Z'], Float[Array, 'n Z']]:
    """Drops the variance logits."""
    eps = output[:, : x_t.shape[-1]]
    return (x_t - sigma * eps) / alpha, eps


@dataclasses.dataclass(frozen=True)
class Flow(Objective):
  """Rectified flow: x_t = (1 - t) x_0 + t eps, the velocity is eps - x_0.

  Liu et al. (2022, arXiv 2209.03003); t is logit-normal as in Esser et al.
  (2024, arXiv 2403.03206). The head's time is 1000 t.
  """

  def output_channels(self, token_dim: int) -> int:
    """As many as the token's."""
    return token_dim

  def draw_levels(self, key: PRNGKeyArray, count: int) -> Float[Array, ' n']:
    """Logit-normal t."""
    return jax.nn.sigmoid(jax.random.normal(key, (count,)))

  def loss(
    self, predict: Predict, x_0: Float[Array, 'n Z'], noise: Noise
  ) -> Float[Array, ' n']:
    """Squared error of the velocity."""
    x_0 = x_0.astype(jnp.float32)
    t, eps = noise
    x_t = (1 - t)[:, None] * x_0 + t[:, None] * eps
    velocity = predict(x_t, TIME_SCALE * t)
    return jnp.mean((eps - x_0 - velocity) ** 2, axis=-1)

  def steps(self, count: int) -> Steps:
    """From t = 1."""
    t = np.linspace(1, 0, count + 1)[:-1]
    return _make_steps(TIME_SCALE * t, 1 - t, t)

  def denoise(
    self,
    output: Float[Array, 'n O'],
    x_t: Float[Array, 'n Z'],
    alpha: Float[Array, ''],
    sigma: Float[Array, ''],
  ) -> tuple[Float[Array, 'n Z'], Float[Array, 'n Z']]:
    """Follows the velocity to both ends of its line."""
    return x_t - sigma * output, x_t + alpha * output


OBJECTIVES: dict[str, Callable[[], Objective]] = {'ddpm': Ddpm, 'flow': Flow}


def make_objective(name: str) -> Objective:
  """Returns the objective of a name.

  Raises:
    UserError: No objective has that name.
  """
  if name not in OBJECTIVES:
    raise UserError(
      f'diffusion objective {name!r} is unknown; use one of {[*OBJECTIVES]}'
    )
  return OBJECTIVES[name]()


def _make_steps(
  time: np.ndarray, alpha: np.ndarray, sigma: np.ndarray
) -> Steps:
  ends = (time, 0.0), (alpha, 1.0), (sigma, 0.0)
  after = [np.append(values[1:], last) for values, last in ends]
  values = (time, alpha, sigma, *after)
  return Steps(*(jnp.asarray(value, jnp.float32) for value in values))


def _levels(t: Int[Array, ' n']) -> markov.Chain:
  """The training chain at n timesteps, leaves [n 1]."""
  chain = markov.make_chain(markov.cosine_alpha_bar())
  return jax.tree.map(lambda values: values[t, None], chain)


def _bound(
  x_0: Float[Array, 'n Z'],
  difference: Float[Array, 'n Z'],
  logits: Float[Array, 'n Z'],
  t: Int[Array, ' n'],
) -> Float[Array, 'n Z']:
  """Term t of the variational bound in bits, where eps_hat = eps - difference.

  As x_0 = (x_t - sigma eps) / alpha, the means of q and p differ by
  `x_0_weight * sigma / alpha * difference`; at t = 0 that of q is x_0.
  """
  level = _levels(t)
  log_variance = markov.learned_log_variance(
    logits, level.log_beta, level.log_variance
  )
  shift = level.x_0_weight * level.sigma / level.alpha * difference
  divergence = markov.gaussian_kl(shift, level.log_variance, log_variance)
  decoder = markov.discretized_nll(x_0, x_0 + shift, log_variance)
  return jnp.where(t[:, None] == 0, decoder, divergence) / math.log(2)
