"""The data is N(MU, S^2) per channel: the best predictor is a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unifluid_jax.diffusion import chain as markov
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.diffusion.solvers import make_solver
from unifluid_jax.utils.errors import UserError

MU = np.array([0.5, -1.0])
S = np.array([0.3, 1.5])
DETERMINISTIC = [
  ('flow', 'euler'),
  ('flow', 'heun'),
  ('flow', 'dpm_solver'),
  ('ddpm', 'ddim'),
  ('ddpm', 'dpm_solver'),
]


def levels(name, time):
  """alpha and sigma at the head's time."""
  if name == 'flow':
    return 1 - time / 1000, time / 1000
  alpha_bar = jnp.asarray(markov.cosine_alpha_bar())[time.astype(int)]
  return jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)


def best_predictor(name, logits=None):
  """The head that minimises the loss; `logits` maps time to its variance's."""

  def predict(x, time):
    alpha, sigma = (level[:, None] for level in levels(name, time))
    score = (x - alpha * MU) / (alpha**2 * S**2 + sigma**2)
    eps, x_0 = sigma * score, MU + alpha * S**2 * score
    if name == 'flow':
      return eps - x_0
    return jnp.concatenate(
      [eps, jnp.zeros_like(eps) if logits is None else logits(time)], axis=-1
    )

  return predict


def exact_end(name, count, noise):
  """Where the ODE takes the noise: the same quantile of the data."""
  steps = make_objective(name).steps(count)
  alpha, sigma = steps.alpha[0], steps.sigma[0]
  score = (noise - alpha * MU) / np.sqrt(alpha**2 * S**2 + sigma**2)
  return MU + S * score


def normal(seed, shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def solve(name, solver, count, noise, predict=None):
  solver = make_solver(solver, make_objective(name), count)
  predict = predict or best_predictor(name)
  return jax.jit(lambda noise: solver.solve(predict, noise))(noise)


def error(name, solver, count):
  noise = normal(0, (256, 2))
  end = solve(name, solver, count, noise)
  return np.sqrt(np.mean((end - exact_end(name, count, noise)) ** 2))


@pytest.mark.parametrize(
  ('name', 'solver', 'count', 'order', 'bound'),
  [
    ('flow', 'euler', 64, 1.0, 3e-2),
    ('flow', 'heun', 64, 2.0, 5e-4),
    ('flow', 'dpm_solver', 64, 1.7, 2e-3),
    ('ddpm', 'ddim', 64, 1.0, 3e-2),
    # With more steps than 64, the last one counts, which is first-order.
    ('ddpm', 'dpm_solver', 16, 2.0, 2e-2),
  ],
)
def test_solver_converges_to_the_ode_with_its_order(
  name, solver, count, order, bound
):
  # 2M on a flow has log-SNR steps that do not shrink at the ends of its way,
  # which costs its second order a logarithm.
  coarse, fine = error(name, solver, count), error(name, solver, 4 * count)
  assert coarse < bound
  assert np.log2(coarse / fine) / 2 == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize('name', ['flow', 'ddpm'])
@pytest.mark.parametrize('count', [10, 20, 50])
def test_the_second_order_pays_at_few_steps(name, count):
  first = error(name, 'euler', count)
  assert error(name, 'dpm_solver', count) < 0.5 * first


@pytest.mark.parametrize(('name', 'solver'), DETERMINISTIC)
def test_deterministic_solver_recovers_the_distribution(name, solver):
  keys = jax.random.split(jax.random.key(1), 20_000)
  solver = make_solver(solver, make_objective(name), 100)
  draw = jax.jit(lambda t: solver.sample(best_predictor(name), keys, 2, t))
  for temperature in (1.0, 0.6):
    x = np.asarray(draw(temperature))
    std = temperature * S
    margin = 4 * std / np.sqrt(len(keys)) + 0.01
    assert (np.abs(x.mean(axis=0) - MU) < margin).all()
    assert (np.abs(x.std(axis=0) - std) < margin).all()


def reverse_chain(timesteps):
  """The exact p(x_s | x_t) of Gaussian data between neighboring timesteps.

  Returns:
    Slopes, offsets and variances [S 2], timesteps ascending, and the logits
    that stand for these variances in the respaced chain.
  """
  now = markov.cosine_alpha_bar()[timesteps, None]
  after = np.append(1.0, now[:-1])[:, None]
  spread_now = now * S**2 + 1 - now
  spread_after = after * S**2 + 1 - after
  covariance = np.sqrt(now / after) * spread_after
  slope = covariance / spread_now
  offset = np.sqrt(after) * MU - slope * np.sqrt(now) * MU
  variance = spread_after - covariance**2 / spread_now
  beta = 1 - now / after
  posterior = beta * (1 - after) / (1 - now)
  fraction = np.zeros_like(variance)
  fraction[1:] = np.log(variance[1:] / posterior[1:])
  fraction[1:] /= np.log(beta[1:] / posterior[1:])
  return slope, offset, variance, 2 * fraction - 1


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_ancestral_solver_is_exact_for_gaussian_data(temperature):
  count, samples = 12, 40_000
  timesteps = np.round(np.linspace(0, 980, count)).astype(int)
  slope, offset, variance, logits = reverse_chain(timesteps)
  mean, spread = np.zeros(2), np.ones(2)
  for step in reversed(range(count)):
    mean = slope[step] * mean + offset[step]
    spread = slope[step] ** 2 * spread
    spread += (step > 0) * temperature**2 * variance[step]
  if temperature == 1:
    np.testing.assert_allclose(mean, MU, atol=0.05)
    np.testing.assert_allclose(np.sqrt(spread), S, atol=1e-3)

  table = jnp.zeros((1000, 2)).at[timesteps].set(logits)
  predict = best_predictor('ddpm', lambda time: table[time.astype(int)])
  keys = jax.random.split(jax.random.key(2), samples)
  solver = make_solver('ancestral', make_objective('ddpm'), count)
  draw = jax.jit(lambda keys: solver.sample(predict, keys, 2, temperature))
  x = np.asarray(draw(keys), float)
  std = np.sqrt(spread)
  assert (np.abs(x.mean(axis=0) - mean) < 4 * std / np.sqrt(samples)).all()
  assert (np.abs(x.std(axis=0) / std - 1) < 4 / np.sqrt(2 * samples)).all()


def test_heun_is_the_textbooks_with_an_euler_end():
  # A predictor that is not linear, and one that is wrong at time 0.
  def velocity(x, t):
    return np.sin(3 * x) + t * x

  def predict(x, time):
    assert time.shape == (4,)
    return jnp.sin(3 * x) + (time / 1000)[:, None] * x

  noise = normal(5, (4, 2))
  x, h = noise, 1 / 3
  for t in (1, 2 / 3):
    proposal = x - h * velocity(x, t)
    x = x - h * (velocity(x, t) + velocity(proposal, t - h)) / 2
  x = x - h * velocity(x, 1 / 3)
  got = solve('flow', 'heun', 3, noise, predict)
  np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-5)


def test_dpm_solver_is_the_papers():
  """DPM-Solver++(2M), algorithm 2, in float64, on uneven log-SNR steps."""
  count = 6
  time = np.asarray(make_objective('ddpm').steps(count).time, int)
  alpha_bar = markov.cosine_alpha_bar()[time]
  alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
  log_snr = np.log(alpha / sigma)

  noise = normal(6, (3, 2))
  x = noise
  clean = [(x - sigma[0] * np.tanh(x)) / alpha[0]]
  for i in range(1, count):
    h = log_snr[i] - log_snr[i - 1]
    direction = clean[-1]
    if i > 1:
      r = (log_snr[i - 1] - log_snr[i - 2]) / h
      direction = (1 + 1 / (2 * r)) * clean[-1] - 1 / (2 * r) * clean[-2]
    x = sigma[i] / sigma[i - 1] * x - alpha[i] * np.expm1(-h) * direction
    clean.append((x - sigma[i] * np.tanh(x)) / alpha[i])

  def predict(x, time):
    return jnp.concatenate([jnp.tanh(x), jnp.full_like(x, 1e3)], axis=-1)

  got = solve('ddpm', 'dpm_solver', count, noise, predict)
  np.testing.assert_allclose(got, clean[-1], rtol=2e-4)


@pytest.mark.parametrize(
  ('name', 'solver'), [('flow', 'euler'), ('ddpm', 'ancestral')]
)
def test_a_sample_does_not_depend_on_its_batch(name, solver):
  keys = jax.random.split(jax.random.key(3), 6)
  solver = make_solver(solver, make_objective(name), 4)
  draw = jax.jit(lambda keys: solver.sample(best_predictor(name), keys, 2))
  batch, alone = np.asarray(draw(keys)), np.asarray(draw(keys[4:5]))
  np.testing.assert_allclose(batch[4:5], alone, rtol=1e-5, atol=1e-5)
  distances = np.abs(batch[:, None] - batch).max(axis=-1) + np.eye(6)
  assert distances.min() > 1e-3


@pytest.mark.parametrize(
  ('name', 'solver'),
  [('flow', 'dpm_solver'), ('flow', 'euler'), ('flow', 'heun')],
)
def test_one_step_jumps_to_the_mean(name, solver):
  end = solve(name, solver, 1, normal(4, (5, 2)))
  np.testing.assert_allclose(end, np.tile(MU, (5, 1)), atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'solver', 'count', 'message'),
  [
    ('flow', 'ancestral', 10, 'Ancestral needs a head trained as Ddpm'),
    ('ddpm', 'heun', 10, 'Heun needs a head trained as Flow'),
    ('ddpm', 'ancestral', 1, '2 or more diffusion steps, not 1'),
    ('flow', 'euler', 0, '1 or more diffusion steps, not 0'),
    ('ddpm', 'ancestral', 982, 'Ancestral has 981 diffusion steps at most'),
    ('ddpm', 'dpm_solver', 981, 'DpmSolver has 980 diffusion steps at most'),
    ('flow', 'rk4', 10, "'rk4' is unknown.*dpm_solver"),
  ],
)
def test_impossible_solvers_are_errors(name, solver, count, message):
  with pytest.raises(UserError, match=message):
    make_solver(solver, make_objective(name), count)
