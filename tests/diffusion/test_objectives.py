import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from unifluid_jax.diffusion.objectives import Ddpm, Flow, make_objective
from unifluid_jax.utils.errors import UserError

DIM = 3


def cosine_products():
  """The cosine schedule again, as running products of clipped betas."""
  product, products = 1.0, []
  for step in range(1000):
    start, end = (
      math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
      for u in (step, step + 1)
    )
    product *= 1 - min(1 - end / start, 0.999)
    products.append(product)
  return np.array(products)


ALPHA_BAR = cosine_products()


def normal_cdf(z):
  """The approximation that MAR uses."""
  return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def ddpm_loss(x_0, x_t, t, output):
  """MAR's loss in float64, from the textbook's formulas.

  Returns:
    The squared error and the bound in bits, per token and channel.
  """
  t = t[:, None]
  now = ALPHA_BAR[t]
  previous = np.where(t > 0, ALPHA_BAR[np.maximum(t - 1, 0)], 1.0)
  beta = 1 - now / previous
  first_variance = (
    (1 - ALPHA_BAR[1] / ALPHA_BAR[0]) * (1 - ALPHA_BAR[0]) / (1 - ALPHA_BAR[1])
  )
  variance = np.where(t > 0, beta * (1 - previous) / (1 - now), first_variance)
  eps_hat, logits = np.split(output, 2, axis=-1)
  fraction = (logits + 1) / 2
  variance_hat = np.exp(
    fraction * np.log(beta) + (1 - fraction) * np.log(variance)
  )

  def posterior_mean(clean):
    return (
      np.sqrt(previous) * beta * clean
      + np.sqrt(1 - beta) * (1 - previous) * x_t
    ) / (1 - now)

  mean_hat = posterior_mean((x_t - np.sqrt(1 - now) * eps_hat) / np.sqrt(now))
  kl = (
    np.log(variance_hat / variance) / 2
    + (variance + (posterior_mean(x_0) - mean_hat) ** 2) / (2 * variance_hat)
    - 0.5
  )
  low, high = (
    (x_0 + edge - mean_hat) / np.sqrt(variance_hat)
    for edge in (-1 / 255, 1 / 255)
  )
  mass = np.where(
    x_0 < -0.999,
    normal_cdf(high),
    np.where(x_0 > 0.999, normal_cdf(-low), normal_cdf(high) - normal_cdf(low)),
  )
  decoder = -np.log(np.maximum(mass, 1e-12))
  eps = (x_t - np.sqrt(now) * x_0) / np.sqrt(1 - now)
  return (eps - eps_hat) ** 2, np.where(t == 0, decoder, kl) / np.log(2)


@pytest.fixture(scope='module')
def ddpm_case():
  """A loss, its gradient in the output, and what the head was asked."""
  count = 8192
  keys = jax.random.split(jax.random.key(3), 3)
  x_0 = jax.random.normal(keys[0], (count, DIM))
  output = 0.3 * jax.random.normal(keys[1], (count, 2 * DIM))

  @jax.jit
  def run(output):
    asked = []

    def predict(x_t, time):
      asked.extend([x_t, time])
      return output

    noise = Ddpm().draw(keys[2], *x_0.shape)
    loss = Ddpm().loss(predict, x_0, noise)
    return loss.sum(), (loss, *asked)

  (_, (loss, x_t, time)), gradient = jax.value_and_grad(run, has_aux=True)(
    output
  )
  case = {
    'x_0': x_0,
    'x_t': x_t,
    'output': output,
    'loss': loss,
    'gradient': gradient,
  }
  case = {name: np.asarray(value, float) for name, value in case.items()}
  return case | {'t': np.asarray(time).astype(int), 'time': np.asarray(time)}


def test_ddpm_loss_is_mse_plus_bound_in_bits(ddpm_case):
  c = ddpm_case
  squared, bound = ddpm_loss(c['x_0'], c['x_t'], c['t'], c['output'])
  expected = (squared + bound).mean(axis=-1)
  assert (c['t'] == 0).sum() >= 3
  np.testing.assert_allclose(c['loss'], expected, rtol=2e-3, atol=1e-5)


def test_ddpm_timesteps_are_uniform_integers(ddpm_case):
  assert ddpm_case['time'].dtype == np.float32
  np.testing.assert_array_equal(ddpm_case['time'], ddpm_case['t'])
  counts, _ = np.histogram(ddpm_case['t'], bins=10, range=(0, 1000))
  assert ddpm_case['t'].min() == 0
  assert ddpm_case['t'].max() == 999
  assert stats.chisquare(counts).pvalue > 1e-3


def test_ddpm_noise_is_standard_normal(ddpm_case):
  c = ddpm_case
  alpha_bar = ALPHA_BAR[c['t']][:, None]
  eps = c['x_t'] - np.sqrt(alpha_bar) * c['x_0']
  eps = (eps / np.sqrt(1 - alpha_bar))[c['t'] > 10]
  assert stats.kstest(eps.ravel(), 'norm').pvalue > 1e-3


def test_ddpm_eps_learns_from_the_squared_error_alone(ddpm_case):
  c = ddpm_case
  alpha_bar = ALPHA_BAR[c['t']][:, None]
  eps = (c['x_t'] - np.sqrt(alpha_bar) * c['x_0']) / np.sqrt(1 - alpha_bar)
  expected = 2 * (c['output'][:, :DIM] - eps) / DIM
  late = c['t'] > 10  # where eps can be told from x_t in float32
  np.testing.assert_allclose(
    c['gradient'][late, :DIM], expected[late], rtol=1e-3, atol=1e-4
  )


def test_ddpm_logits_learn_from_the_bound_alone(ddpm_case):
  c = ddpm_case
  step = np.concatenate([np.zeros(DIM), np.full(DIM, 1e-5)])
  bounds = [
    ddpm_loss(c['x_0'], c['x_t'], c['t'], c['output'] + sign * step)[1]
    for sign in (1, -1)
  ]
  expected = (bounds[0] - bounds[1]) / 2e-5 / DIM
  assert np.abs(expected).min() > 0
  np.testing.assert_allclose(
    c['gradient'][:, DIM:], expected, rtol=5e-3, atol=1e-4
  )


def test_flow_target_is_noise_minus_data():
  # x_t = x_0 + t (eps - x_0), so this head is right at every t.
  x_0 = jax.random.normal(jax.random.key(0), (64, DIM)) + 5.0

  def predict(x_t, time):
    return (x_t - x_0) / (time / 1000)[:, None]

  noise = Flow().draw(jax.random.key(1), *x_0.shape)
  loss = jax.jit(lambda noise: Flow().loss(predict, x_0, noise))(noise)
  np.testing.assert_allclose(loss, np.zeros(64), atol=1e-6)


def test_flow_time_is_logit_normal():
  asked = []

  def predict(x_t, time):
    asked.append(time / 1000)
    return x_t

  noise = Flow().draw(jax.random.key(2), 5000, 1)
  Flow().loss(predict, jnp.zeros((5000, 1)), noise)
  t = np.asarray(asked[0], float)
  assert stats.kstest(np.log(t / (1 - t)), 'norm').pvalue > 1e-3


def test_flow_loss_of_the_best_predictor_is_the_conditional_variance():
  # For x_0 ~ N(mu, s^2), Var(eps - x_0 | x_t) = s^2 / (t^2 + (1 - t)^2 s^2).
  mu, s, count = 0.7, 0.4, 200_000

  def variance(t):
    return s**2 / (t**2 + (1 - t) ** 2 * s**2)

  def predict(x_t, time):
    t = (time / 1000)[:, None]
    slope = (t - (1 - t) * s**2) / (t**2 + (1 - t) ** 2 * s**2)
    return -mu + slope * (x_t - (1 - t) * mu)

  x_0 = mu + s * jax.random.normal(jax.random.key(3), (count, 1))
  noise = Flow().draw(jax.random.key(4), *x_0.shape)
  loss = np.asarray(Flow().loss(predict, x_0, noise), float)
  expected, _ = integrate.quad(
    lambda z: variance(1 / (1 + np.exp(-z))) * stats.norm.pdf(z), -10, 10
  )
  assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(count)


@pytest.mark.parametrize('name', ['ddpm', 'flow'])
def test_denoise_undoes_the_noise(name):
  objective = make_objective(name)
  x_0, eps = jax.random.normal(jax.random.key(5), (2, 4, DIM))
  steps = objective.steps(5)
  alpha, sigma = steps.alpha[2], steps.sigma[2]
  prediction = {'ddpm': eps, 'flow': eps - x_0}[name]
  junk = jnp.ones((4, objective.output_channels(DIM) - DIM))
  output = jnp.concatenate([prediction, junk], axis=-1)
  got = objective.denoise(output, alpha * x_0 + sigma * eps, alpha, sigma)
  np.testing.assert_allclose(got, [x_0, eps], atol=1e-5)


@pytest.mark.parametrize('name', ['ddpm', 'flow'])
def test_steps_go_from_noise_to_data_without_a_gap(name):
  steps = make_objective(name).steps(7)
  for now, after, end in zip(steps[:3], steps[3:], (0, 1, 0), strict=True):
    np.testing.assert_array_equal(now[1:], after[:-1])
    assert after[-1] == end
  assert (np.diff(steps.time) < 0).all()
  assert steps.sigma[0] > 0.999


def test_ddpm_steps_are_levels_of_the_training_chain():
  steps = Ddpm().steps(9)
  alpha_bar = ALPHA_BAR[np.asarray(steps.time, int)]
  np.testing.assert_allclose(steps.alpha, np.sqrt(alpha_bar), rtol=1e-5)
  np.testing.assert_allclose(steps.sigma, np.sqrt(1 - alpha_bar), rtol=1e-5)


def test_output_channels():
  assert Ddpm().output_channels(16) == 32
  assert Flow().output_channels(16) == 16


def test_unknown_objective_is_an_error():
  with pytest.raises(UserError, match="'edm' is unknown.*ddpm.*flow"):
    make_objective('edm')
