"""The policies' fixed points, which are known."""

import jax.numpy as jnp
import numpy as np

from unifluid_jax.training.balance import initial_state, make_balance

NORMS = jnp.array([4.0, 1.0])


def run(policy, losses, intervals=300):
  state = initial_state()
  for _ in range(intervals):
    state = policy.update(state, losses, NORMS)
  return state.weights


def test_fixed_stays():
  assert (run(make_balance('fixed'), jnp.array([2.0, 0.5])) == 1).all()


def test_uncertainty_weighs_by_the_inverse_loss():
  """exp(-s) L + s is least where exp(-s) = 1 / L."""
  weights = run(make_balance('uncertainty'), jnp.array([2.0, 0.5]))
  np.testing.assert_allclose(weights, [0.5, 2.0], rtol=1e-3)


def test_uncertainty_leaves_the_weight_of_a_loss_that_is_not_there():
  """As where only images, or only texts, are learnt."""
  weights = run(make_balance('uncertainty'), jnp.array([2.0, 0.0]), 1000)
  np.testing.assert_allclose(weights, [0.5, 1.0], rtol=1e-3)


def test_gradnorm_equals_norms_of_tasks_that_learn_equally_fast():
  weights = run(make_balance('gradnorm'), jnp.array([2.0, 0.5]))
  np.testing.assert_allclose(weights * NORMS, [1.6, 1.6], rtol=1e-3)


def test_gradnorm_favors_the_task_that_learns_slowly():
  policy, state = make_balance('gradnorm'), initial_state()
  state = policy.update(state, jnp.array([1.0, 1.0]), NORMS)
  for _ in range(300):
    state = policy.update(state, jnp.array([0.25, 1.0]), NORMS)
  norms = state.weights * NORMS
  # The square root of the ratio of the losses that are left.
  np.testing.assert_allclose(norms[1] / norms[0], 2.0, rtol=1e-3)


def test_gradnorm_waits_where_a_task_is_not_there():
  policy, state = make_balance('gradnorm'), initial_state()
  state = policy.update(state, jnp.array([1.0, 1.0]), NORMS)
  for losses, norms in (
    ((1.0, 0.0), (4.0, 0.0)),  # a batch without texts
    ((1.0, 1.0), (0.0, 0.0)),  # nothing that both share is trained
  ):
    after = policy.update(state, jnp.array(losses), jnp.array(norms))
    assert (after.weights == state.weights).all()
    assert (after.reference == state.reference).all()
