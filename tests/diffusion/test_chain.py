import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from unifluid_jax.diffusion import chain as markov


def test_cosine_schedule_has_the_published_constants():
  alpha_bar = markov.cosine_alpha_bar()
  assert alpha_bar.shape == (1000,)
  assert 1 - alpha_bar[0] == pytest.approx(4.13e-5, rel=2e-3)
  assert alpha_bar[500] == pytest.approx(0.492, abs=5e-4)
  assert alpha_bar[999] == pytest.approx(2.4e-9, rel=2e-2)
  assert 1 - alpha_bar[999] / alpha_bar[998] == pytest.approx(0.999)


def test_chain_is_bayes_rule_at_every_timestep():
  # q(x_{t-1} | x_t, x_0) from the precisions of its two factors.
  alpha_bar = markov.cosine_alpha_bar()
  chain = markov.make_chain(alpha_bar)
  previous, now = alpha_bar[:-1], alpha_bar[1:]
  ratio = now / previous
  likelihood = ratio / (1 - ratio)
  prior = 1 / (1 - previous)
  variance = 1 / (likelihood + prior)
  np.testing.assert_allclose(chain.log_variance[1:], np.log(variance), 1e-5)
  np.testing.assert_allclose(
    chain.x_t_weight[1:], variance * likelihood / np.sqrt(ratio), 1e-5
  )
  np.testing.assert_allclose(
    chain.x_0_weight[1:], variance * prior * np.sqrt(previous), 1e-5
  )
  np.testing.assert_allclose(chain.log_beta[1:], np.log1p(-ratio), 1e-5)
  # At t = 0 the posterior is x_0 itself, and its log variance is clipped.
  assert chain.x_0_weight[0] == 1
  assert chain.x_t_weight[0] == 0
  assert chain.log_variance[0] == chain.log_variance[1]


def test_respaced_chain_keeps_levels_and_joins_betas():
  alpha_bar = markov.cosine_alpha_bar()
  timesteps = markov.spaced_timesteps(99)
  assert len(np.unique(timesteps)) == 99
  assert (timesteps[0], timesteps[1], timesteps[-1]) == (980, 970, 0)
  full = markov.make_chain(alpha_bar)
  spaced = markov.make_chain(alpha_bar[timesteps[::-1]])
  np.testing.assert_array_equal(spaced.alpha, full.alpha[timesteps[::-1]])
  # 1 - beta of a long step is the product over the short ones it joins.
  joined = np.asarray(full.log_beta, float)[
    timesteps[49] + 1 : timesteps[48] + 1
  ]
  kept = np.prod(-np.expm1(joined))
  assert -np.expm1(spaced.log_beta[50]) == pytest.approx(kept, rel=1e-4)


def test_sampling_starts_where_some_signal_is_left():
  first = markov.spaced_timesteps(10)[0]
  alpha = np.sqrt(markov.cosine_alpha_bar()[first])
  assert alpha == pytest.approx(0.03, abs=1e-3)


def test_the_most_steps_are_all_timesteps():
  most = markov.FIRST_TIMESTEP
  steps = markov.spaced_timesteps(most + 1)
  np.testing.assert_array_equal(steps, np.arange(most, -1, -1))
  steps = markov.spaced_timesteps(most, with_0=False)
  np.testing.assert_array_equal(steps, np.arange(most, 0, -1))


def test_timesteps_on_the_way_to_0():
  assert markov.spaced_timesteps(4, with_0=False).tolist() == [
    980,
    735,
    490,
    245,
  ]


def test_learned_log_variance_spans_posterior_to_beta():
  logits = jnp.array([[-1.0, 0.0, 1.0, 3.0]])
  got = markov.learned_log_variance(
    logits, jnp.array([[-2.0]]), jnp.array([[-6.0]])
  )
  np.testing.assert_allclose(got, [[-6.0, -4.0, -2.0, 2.0]])


def test_gaussian_kl_is_its_integral():
  p, q = stats.norm(0.3, np.exp(-0.4)), stats.norm(-0.5, np.exp(0.1))
  expected, _ = integrate.quad(
    lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -10, 10
  )
  got = markov.gaussian_kl(
    jnp.array([[0.8]]), jnp.array([[-0.8]]), jnp.array([[0.2]])
  )
  np.testing.assert_allclose(got, [[expected]], rtol=1e-5)


def mar_nll(x, mean, std):
  """MAR's decoder term at t = 0, in float64, from its formula."""

  def cdf(z):
    return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

  low, high = (cdf((x - mean + edge) / std) for edge in (-1 / 255, 1 / 255))
  inside = np.where(x > 0.999, 1 - low, high - low)
  return -np.log(np.maximum(np.where(x < -0.999, high, inside), 1e-12))


@pytest.mark.parametrize('std', [0.005, 0.01, 0.3])
def test_discretized_nll_is_mars(std):
  x = np.linspace(-1.5, 1.5, 301)[:, None]
  x, mean = jnp.float32([x, x + 3 * std * np.sin(np.arange(301))[:, None]])
  log_variance = jnp.full_like(x, 2 * np.log(std))
  got = jax.jit(markov.discretized_nll)(x, mean, log_variance)
  x, mean = np.asarray(x, float), np.asarray(mean, float)
  np.testing.assert_allclose(got, mar_nll(x, mean, std), rtol=2e-3, atol=2e-5)


def test_normal_cdf_is_the_approximation_of_mar():
  z = np.linspace(-6, 6, 241)[:, None]
  got = np.asarray(markov.approximate_normal_cdf(jnp.float32(z)), float)
  expected = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-12)
  # It is not the exact one, whose tails are lighter.
  assert 1e-4 < np.abs(got - stats.norm.cdf(z)).max() < 3e-4


@pytest.mark.parametrize('log_variance', [-10.0, -100.0, 80.0])
def test_gradients_of_discretized_nll_are_finite(log_variance):
  x = jnp.linspace(-1.5, 1.5, 7)[:, None]
  far = jnp.array([-1e6, -1.0, -1e-3, 0.0, 1e-3, 1.0, 1e6])[:, None]
  gradients = jax.grad(
    lambda *values: markov.discretized_nll(x, *values).sum(), (0, 1)
  )(x + far, jnp.full_like(x, log_variance))
  for gradient in gradients:
    assert np.isfinite(gradient).all()


def test_discretized_nll_of_an_impossible_bin_is_finite():
  got = markov.discretized_nll(
    jnp.array([[0.0]]), jnp.array([[0.9]]), jnp.array([[-10.0]])
  )
  np.testing.assert_allclose(got, [[-np.log(1e-12)]], rtol=1e-6)
