import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unifluid_jax.diffusion.guidance import Guidance, guided
from unifluid_jax.utils.errors import UserError

TOKENS, DIM = 4, 3
CONDITION = jax.random.normal(jax.random.key(0), (2 * TOKENS, 2 * DIM))
TIME = jnp.array([0.0, 250.0, 600.0, 999.0])
X = jax.random.normal(jax.random.key(1), (TOKENS, DIM))


def head(x_t, time):
  """Stands for a head on 2n rows; the first n have the condition."""
  return CONDITION + jnp.tile(x_t, 2) * (1 + time[:, None] / 1000)


def halves():
  both = head(jnp.tile(X, (2, 1)), jnp.tile(TIME, 2))
  return np.asarray(both[:TOKENS]), np.asarray(both[TOKENS:])


def test_both_halves_see_the_same_noisy_token_and_time():
  asked = []

  def predict(x_t, time):
    asked.extend([x_t, time])
    return x_t

  guided(predict, 2.0)(X, TIME)
  np.testing.assert_array_equal(asked[0], np.tile(X, (2, 1)))
  np.testing.assert_array_equal(asked[1], np.tile(TIME, 2))


def test_scale_of_one_is_the_conditional_prediction():
  conditional, unconditional = halves()
  assert np.abs(conditional - unconditional).min() > 1e-3
  np.testing.assert_array_equal(guided(head, 1.0)(X, TIME), conditional)


@pytest.mark.parametrize('scale', [0.0, 3.0, np.array([0.0, 1.0, 2.0, 5.0])])
def test_prediction_is_mixed_and_variance_is_conditional(scale):
  conditional, unconditional = halves()
  got = guided(head, jnp.asarray(scale))(X, TIME)
  weight = np.broadcast_to(scale, TOKENS)[:, None]
  mixed = unconditional + weight * (conditional - unconditional)
  np.testing.assert_allclose(got[:, :DIM], mixed[:, :DIM], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(got[:, DIM:], conditional[:, DIM:])


def test_interval_guides_only_its_diffusion_times():
  conditional, _ = halves()
  everywhere = np.asarray(guided(head, 3.0)(X, TIME))
  got = np.asarray(guided(head, 3.0, (0.25, 0.7))(X, TIME))
  np.testing.assert_array_equal(got[1:3], everywhere[1:3])
  np.testing.assert_array_equal(got[[0, 3]], conditional[[0, 3]])


def test_linear_schedule_rises_from_one_to_the_scale():
  linear = Guidance(scale=3.0, schedule='linear')
  assert [linear.scale_at(f) for f in (0.0, 0.25, 1.0)] == [1.0, 1.5, 3.0]
  constant = Guidance(scale=3.0)
  assert [constant.scale_at(f) for f in (0.0, 0.25, 1.0)] == [3.0, 3.0, 3.0]


def test_guide_applies_schedule_and_interval():
  guidance = Guidance(3.0, 'linear', (0.1, 0.9))
  got = guidance.guide(head, jnp.float32(0.5))(X, TIME)
  expected = guided(head, 2.0, (0.1, 0.9))(X, TIME)
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'schedule': 'cosine'}, "'cosine' is unknown"),
    ({'interval': (0.6, 0.4)}, 'ascending'),
    ({'interval': (0.0, 1.5)}, 'within 0 and 1'),
  ],
)
def test_wrong_settings_are_errors(settings, message):
  with pytest.raises(UserError, match=message):
    Guidance(**settings)
