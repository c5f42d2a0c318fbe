"""Policies that balance the image loss and the text loss.

A policy updates the weights of both losses at an interval from measurements;
every step uses these weights. UniFluid fixes a weight lambda of the text loss.
Every policy multiplies its text weight by lambda.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from unifluid_jax.config.sections.training import BALANCES

Pair = Float[Array, '2']
"""One value for the image loss, one for the text loss, in this order."""


class BalanceState(NamedTuple):
  """State of a policy.

  Attributes:
    weights: Current task weights before lambda.
    reference: Reference losses of the policy; 0 until set.
  """

  weights: Pair
  reference: Pair


@runtime_checkable
class Balance(Protocol):
  """A loss-balance policy."""

  def update(
    self, state: BalanceState, losses: Pair, norms: Pair
  ) -> BalanceState:
    """Returns the state after measuring these losses and gradient norms."""


@dataclasses.dataclass(frozen=True)
class Fixed:
  """Weights 1 and lambda, as in UniFluid."""

  def update(
    self, state: BalanceState, losses: Pair, norms: Pair
  ) -> BalanceState:
    """Returns the state unchanged."""
    del losses, norms
    return state


@dataclasses.dataclass(frozen=True)
class Uncertainty:
  """Homoscedastic uncertainty (Kendall et al., arXiv 1705.07115, eq. 7).

  L = sum_i exp(-s_i) L_i + s_i. A gradient step of size `rate` on s_i is
  s_i += rate * (exp(-s_i) L_i - 1); the weight is exp(-s_i).
  """

  rate: float = 0.1

  def update(
    self, state: BalanceState, losses: Pair, norms: Pair
  ) -> BalanceState:
    """Takes one gradient step on the log variances."""
    del norms
    residual = jnp.clip(state.weights * losses - 1, -1.0, 1.0)
    weights = state.weights * jnp.exp(-self.rate * residual)
    # Skip the update if a loss is absent: its weight would grow forever.
    weights = jnp.where(losses > 0, weights, state.weights)
    return state._replace(weights=weights)


@dataclasses.dataclass(frozen=True)
class GradNorm:
  """GradNorm (Chen et al., arXiv 1711.02257), moved towards its fixed point.

  At the fixed point, task i's weighted gradient norm is the mean norm times
  (relative inverse training rate)^alpha. Each interval moves the weights there
  by `rate` and keeps their sum of 2.
  """

  alpha: float = 0.5
  rate: float = 0.1

  def update(
    self, state: BalanceState, losses: Pair, norms: Pair
  ) -> BalanceState:
    """Moves the weights towards balanced gradient norms."""
    tiny = jnp.float32(1e-8)
    reference = jnp.where(state.reference > 0, state.reference, losses)
    progress = losses / jnp.maximum(reference, tiny)
    pace = (progress / jnp.maximum(progress.mean(), tiny)) ** self.alpha
    goal = (state.weights * norms).mean() * pace / jnp.maximum(norms, tiny)
    goal = 2 * goal / jnp.maximum(goal.sum(), tiny)
    weights = (1 - self.rate) * state.weights + self.rate * goal
    # Skip the update if either loss is absent.
    is_there = ((losses > 0) & (norms > 0)).all()
    return BalanceState(jnp.where(is_there, weights, state.weights), reference)


_POLICIES: dict[str, Balance] = dict(
  zip(BALANCES, (Fixed(), Uncertainty(), GradNorm()), strict=True)
)


def make_balance(name: str) -> Balance:
  """Returns the policy of a `balance` key, one of `BALANCES`."""
  return _POLICIES[name]


def initial_state() -> BalanceState:
  """Returns the state of equal weights."""
  return BalanceState(jnp.ones(2), jnp.zeros(2))
