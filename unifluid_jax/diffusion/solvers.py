"""Solvers: from noise to tokens with a trained head.

Every solver runs a static number of steps under `lax.scan`, at the same noise
levels for all tokens. The noise of a token is a function of its own key and
of the step, so a sample does not depend on the batch it is drawn in.

Legend: n tokens, Z channels of a token, S steps.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unifluid_jax.diffusion import chain as markov
from unifluid_jax.diffusion.objectives import (
  Ddpm,
  Flow,
  Objective,
  Predict,
  Steps,
)
from unifluid_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Solver(abc.ABC):
  """A way from noise to data.

  Attributes:
    objective: What the head was trained to predict.
    count: Number of steps, S.
  """

  objective: Objective
  count: int

  serves: ClassVar[type] = Objective
  fewest: ClassVar[int] = 1

  def __post_init__(self):
    if not isinstance(self.objective, self.serves):
      raise UserError(
        f'solver {type(self).__name__} needs a head trained as '
        f'{self.serves.__name__}, not {type(self.objective).__name__}; choose '
        'another diffusion solver'
      )
    if self.count < self.fewest:
      raise UserError(
        f'solver {type(self).__name__} needs {self.fewest} or more diffusion '
        f'steps, not {self.count}'
      )
    # With numbers alone: configs are checked before processes have found one
    # another, and what JAX computes would start its devices.
    if self.count > self.most:
      raise UserError(
        f'solver {type(self).__name__} has {self.most} diffusion steps at '
        f'most, not {self.count}'
      )

  @property
  def most(self) -> float:
    """Largest number of steps."""
    return self.objective.most_steps

  @abc.abstractmethod
  def sample(
    self,
    predict: Predict,
    keys: Key[Array, ' n'],
    token_dim: int,
    temperature: Float[Array, ''] | float = 1.0,
  ) -> Float[Array, 'n Z']:
    """Draws tokens.

    Args:
      predict: The head, bound to the conditions of the n tokens.
      keys: A random key for each token.
      token_dim: Z.
      temperature: Scales noise: for the ancestral solver that which it adds on
        its way (as MAR does), for the others that which they start from.
    """


class Ancestral(Solver):
  """DDPM's reverse chain through evenly spaced timesteps.

  Its betas are those of the respaced chain, its variance is the learned one.
  """

  serves = Ddpm
  fewest = 2

  @property
  def most(self) -> float:
    """See `Solver`: 0 is one of its timesteps."""
    return self.objective.most_steps + 1

  def sample(
    self,
    predict: Predict,
    keys: Key[Array, ' n'],
    token_dim: int,
    temperature: Float[Array, ''] | float = 1.0,
  ) -> Float[Array, 'n Z']:
    """See `Solver`."""
    t = markov.spaced_timesteps(self.count)[::-1]
    chain = markov.make_chain(markov.cosine_alpha_bar()[t])

    def step(x, scanned):
      index, time, level = scanned
      output = _ask(predict, x, time)
      x_0, _ = self.objective.denoise(output, x, level.alpha, level.sigma)
      log_variance = markov.learned_log_variance(
        output[:, token_dim:], level.log_beta, level.log_variance
      )
      std = jnp.where(index > 0, temperature * jnp.exp(0.5 * log_variance), 0)
      mean = level.x_0_weight * x_0 + level.x_t_weight * x
      return mean + std * _noise(keys, index, token_dim), None

    scanned = jnp.arange(self.count), jnp.asarray(t, jnp.float32), chain
    noise = _noise(keys, 0, token_dim)
    return jax.lax.scan(step, noise, scanned, reverse=True)[0]


class Deterministic(Solver):
  """A solver of the probability-flow ODE, from scaled initial noise."""

  def sample(
    self,
    predict: Predict,
    keys: Key[Array, ' n'],
    token_dim: int,
    temperature: Float[Array, ''] | float = 1.0,
  ) -> Float[Array, 'n Z']:
    """See `Solver`."""
    noise = temperature * _noise(keys, 0, token_dim)
    return self.solve(predict, noise)

  @abc.abstractmethod
  def solve(
    self, predict: Predict, noise: Float[Array, 'n Z']
  ) -> Float[Array, 'n Z']:
    """Follows the ODE from noise to data."""

  def _move(
    self, x: Float[Array, 'n Z'], output: Float[Array, 'n O'], step: Steps
  ) -> Float[Array, 'n Z']:
    """An Euler step: the denoised token, noised to the next level.

    It holds the head's prediction constant, so it is an Euler step of
    dx/dt = velocity for a flow, and for `ddpm` one of dy/dr = eps, where
    y = x / alpha and r = sigma / alpha.
    """
    x_0, eps = self.objective.denoise(output, x, step.alpha, step.sigma)
    return step.next_alpha * x_0 + step.next_sigma * eps


class Euler(Deterministic):
  """Euler's method, which for `ddpm` is DDIM with eta = 0.

  Song et al. (2021, arXiv 2010.02502), equations 12 and 14.
  """

  def solve(
    self, predict: Predict, noise: Float[Array, 'n Z']
  ) -> Float[Array, 'n Z']:
    """See `Deterministic`."""

    def body(x, step):
      return self._move(x, _ask(predict, x, step.time), step), None

    steps = self.objective.steps(self.count)
    return jax.lax.scan(body, noise, steps)[0]


class Heun(Deterministic):
  """Heun's method; its last step is Euler's, as no head knows time 0.

  Karras et al. (2022, arXiv 2206.00364), algorithm 1. Asks the head
  2 S - 1 times. Not for `ddpm`, where `DpmSolver` is closer at equal cost.
  """

  serves = Flow

  def solve(
    self, predict: Predict, noise: Float[Array, 'n Z']
  ) -> Float[Array, 'n Z']:
    """See `Deterministic`."""

    def body(x, step):
      output = _ask(predict, x, step.time)
      proposal = self._move(x, output, step)
      corrected = (output + _ask(predict, proposal, step.next_time)) / 2
      return self._move(x, corrected, step), None

    steps = self.objective.steps(self.count)
    x, _ = jax.lax.scan(body, noise, Steps(*(v[:-1] for v in steps)))
    last = Steps(*(v[-1] for v in steps))
    return self._move(x, _ask(predict, x, last.time), last)


class DpmSolver(Deterministic):
  """DPM-Solver++(2M): two steps' denoised tokens, extrapolated.

  Lu et al. (2022, arXiv 2211.01095), algorithm 2. The first step has no
  predecessor and the last one an infinite log-SNR: both are first-order.
  """

  def solve(
    self, predict: Predict, noise: Float[Array, 'n Z']
  ) -> Float[Array, 'n Z']:
    """See `Deterministic`."""

    def body(carry, scanned):
      x, previous = carry
      step, weight = scanned
      output = _ask(predict, x, step.time)
      x_0, _ = self.objective.denoise(output, x, step.alpha, step.sigma)
      direction = x_0 + weight * (x_0 - previous)
      shrink = step.next_sigma / step.sigma
      gain = step.next_alpha - shrink * step.alpha
      return (shrink * x + gain * direction, x_0), None

    steps = self.objective.steps(self.count)
    scanned = steps, _extrapolation(steps)
    (x, _), _ = jax.lax.scan(body, (noise, jnp.zeros_like(noise)), scanned)
    return x


SOLVERS: dict[str, type[Solver]] = {
  'ancestral': Ancestral,
  'ddim': Euler,
  'dpm_solver': DpmSolver,
  'euler': Euler,
  'heun': Heun,
}


def make_solver(name: str, objective: Objective, count: int) -> Solver:
  """The solver of a config's name.

  Args:
    name: A key of SOLVERS; 'ddim' and 'euler' are one method.
    objective: What the head was trained to predict.
    count: Number of steps.

  Raises:
    UserError: No solver has that name, or it cannot do this.
  """
  if name not in SOLVERS:
    raise UserError(
      f'diffusion solver {name!r} is unknown; use one of {[*SOLVERS]}'
    )
  return SOLVERS[name](objective, count)


def _extrapolation(steps: Steps) -> Float[Array, ' S']:
  """Weight of the change of the denoised token: 1 / (2 r), r = h_prev / h.

  h is the step in log(alpha / sigma); a flow's first one is infinite.
  """
  h = jnp.diff(jnp.log(steps.alpha / steps.sigma))
  return jnp.pad(h[1:] / h[:-1] / 2, 1)[: len(steps.time)]


def _ask(
  predict: Predict, x: Float[Array, 'n Z'], time: Float[Array, '']
) -> Float[Array, 'n O']:
  return predict(x, jnp.full(x.shape[:1], time))


def _noise(
  keys: Key[Array, ' n'], step: Int[Array, ''] | int, token_dim: int
) -> Float[Array, 'n Z']:
  """Row i is a function of keys[i] and the step alone; step 0 is the start."""

  def draw(key):
    return jax.random.normal(jax.random.fold_in(key, step), (token_dim,))

  return jax.vmap(draw)(keys)
