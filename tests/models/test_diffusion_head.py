import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.diffusion.solvers import make_solver
from unifluid_jax.models import parameters
from unifluid_jax.models.diffusion_head import (
  DiffusionHead,
  DiffusionHeadConfig,
)

TOKENS, WIDTH, DEPTH, TOKEN_DIM, CONDITION_DIM, OUTPUTS = 5, 32, 2, 3, 6, 6


def make_head(width=WIDTH, depth=DEPTH, **shape):
  shape = {
    'token_dim': TOKEN_DIM,
    'condition_dim': CONDITION_DIM,
    'output_channels': OUTPUTS,
  } | shape
  return DiffusionHead(
    DiffusionHeadConfig(width, depth), rngs=nnx.Rngs(0), **shape
  )


@pytest.fixture(scope='module')
def fresh():
  return nnx.jit(lambda: make_head(edits=True))()


@pytest.fixture(scope='module')
def head(fresh):
  """A head off its initial values, whose zero gates would hide errors."""
  graphdef, flat = parameters.flatten(fresh)
  rng = np.random.default_rng(1)
  moved = {
    name: value + 0.3 * rng.standard_normal(value.shape, np.float32)
    for name, value in flat.items()
  }
  return parameters.unflatten(graphdef, moved)


def inputs():
  rng = np.random.default_rng(2)
  x_t = jnp.asarray(rng.standard_normal((TOKENS, TOKEN_DIM), np.float32))
  hidden = rng.standard_normal((TOKENS, CONDITION_DIM), np.float32)
  time = jnp.array([0.0, 0.5, 20.0, 500.0, 999.0])
  return x_t, time, jnp.asarray(hidden)


@nnx.jit
def run(head, x_t, time, hidden, sources=None):
  return head(x_t, time, head.embed_condition(hidden, sources))


def reference(head, x_t, time, hidden, sources=None):
  """MAR's head in numpy float64, block by block."""
  _, flat = parameters.flatten(head)
  p = {name: np.asarray(value, float) for name, value in flat.items()}
  x_t, time, hidden = (np.asarray(v, float) for v in (x_t, time, hidden))

  def silu(x):
    return x / (1 + np.exp(-x))

  def norm(x):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)

  def linear(name, x, layer=...):
    kernel, bias = p[f'{name}/kernel'][layer], p[f'{name}/bias'][layer]
    return x @ kernel.reshape(len(kernel), -1) + bias.ravel()

  phases = time[:, None] * 10_000.0 ** (-np.arange(128) / 128)
  wave = np.concatenate([np.cos(phases), np.sin(phases)], axis=-1)
  embedding = linear('time_out', silu(linear('time_in', wave)))
  y = silu(embedding + linear('condition', hidden))
  x = linear('input', x_t)
  if sources is not None:
    x += np.asarray(sources, float) @ p['source']
  for i in range(DEPTH):
    modulation = linear('blocks/blocks/modulation', y, i)
    shift, scale, gate = np.split(modulation, 3, axis=-1)
    h = norm(x) * p['blocks/blocks/norm/scale'][i]
    h = (h + p['blocks/blocks/norm/bias'][i]) * (1 + scale) + shift
    h = silu(linear('blocks/blocks/up', h, i))
    x = x + gate * linear('blocks/blocks/down', h, i)
  shift, scale = np.split(linear('final/modulation', y), 2, axis=-1)
  return linear('final/output', norm(x) * (1 + scale) + shift)


def test_head_is_mars(head):
  x_t, time, hidden = inputs()
  got = run(head, x_t, time, hidden)
  expected = reference(head, x_t, time, hidden)
  np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_sources_are_further_input_channels(head):
  x_t, time, hidden = inputs()
  sources = x_t[::-1]
  got = run(head, x_t, time, hidden, sources)
  expected = reference(head, x_t, time, hidden, sources)
  np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
  np.testing.assert_array_equal(
    run(head, x_t, time, hidden, jnp.zeros_like(x_t)),
    run(head, x_t, time, hidden),
  )


def test_output_is_zero_at_init_and_its_gradient_is_not(fresh):
  x_t, time, hidden = inputs()
  assert not run(fresh, x_t, time, hidden).any()

  graphdef, flat = parameters.flatten(fresh)

  def loss(flat):
    head = parameters.unflatten(graphdef, flat)
    return ((head(x_t, time, head.embed_condition(hidden)) - 1) ** 2).sum()

  gradient = jax.jit(jax.grad(loss))(flat)
  moved = {name for name, value in gradient.items() if value.any()}
  assert moved == {'final/output/kernel', 'final/output/bias'}


def test_parameters_start_as_published(fresh):
  flat = jax.tree.map(np.asarray, parameters.flatten(fresh)[1])
  for name, inputs, outputs in [
    ('input', TOKEN_DIM, WIDTH),
    ('condition', CONDITION_DIM, WIDTH),
    ('blocks/blocks/up', WIDTH, WIDTH),
    ('blocks/blocks/down', WIDTH, WIDTH),
  ]:
    kernel, bound = flat[f'{name}/kernel'], np.sqrt(6 / (inputs + outputs))
    assert bound * 0.95 < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
  for name in ('time_in', 'time_out'):
    assert flat[f'{name}/kernel'].std() == pytest.approx(0.02, rel=0.1)
  for name in ('blocks/blocks/modulation', 'final/modulation', 'final/output'):
    assert not flat[f'{name}/kernel'].any()
  assert not any(v.any() for name, v in flat.items() if name.endswith('bias'))
  assert (flat['blocks/blocks/norm/scale'] == 1).all()
  assert np.unique(flat['blocks/blocks/up/kernel'][:, 0, 0]).size == DEPTH


@pytest.mark.parametrize(
  ('width', 'condition_dim', 'millions'),
  [(1024, 1152, 36.1), (1536, 2304, 81.9)],
)
def test_parameter_count_of_six_blocks(width, condition_dim, millions):
  # MAR's formula: the blocks' 5 W^2, the final 2 W^2, embeddings, biases.
  state = jax.eval_shape(
    lambda: nnx.state(
      make_head(
        width, 6, token_dim=16, condition_dim=condition_dim, output_channels=32
      )
    )
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(state))
  assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_every_parameter_names_its_axes(head):
  axes, (_, flat) = parameters.logical_axes(head), parameters.flatten(head)
  for name, value in flat.items():
    assert len(axes[name]) == value.ndim
    assert any(axes[name]) or name == 'final/output/bias'
    assert name.startswith('blocks/') == ('layers' in axes[name])


def test_no_token_sees_another(head):
  x_t, time, hidden = inputs()

  def predict(x_t, time, hidden):
    return head(x_t, time, head.embed_condition(hidden)).sum(axis=-1)

  jacobians = jax.jit(jax.jacrev(predict, argnums=(0, 1, 2)))
  for jacobian in jacobians(x_t, time, hidden):
    sizes = np.abs(jacobian).reshape(TOKENS, TOKENS, -1).sum(axis=-1)
    np.testing.assert_array_equal(sizes != 0, np.eye(TOKENS, dtype=bool))


def test_condition_is_embedded_once_for_many_noise_levels(head):
  x_t, time, hidden = inputs()
  levels = [time, time[::-1]]

  @jax.jit
  def predict_twice(x_t, hidden):
    once = head.embed_condition(hidden)
    return [head(x_t, level, once) for level in levels]

  for got, level in zip(predict_twice(x_t, hidden), levels, strict=True):
    expected = reference(head, x_t, level, hidden)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_half_precision_states_give_float32(head):
  x_t, time, hidden = inputs()
  shape = jax.eval_shape(
    lambda: head(x_t, time, head.embed_condition(hidden.astype(jnp.bfloat16)))
  )
  assert shape.dtype == jnp.float32


MEANS = np.array([[1.0, 1.0], [-1.0, 0.5], [0.0, -1.5]], np.float32)
STD = 0.3


def train(objective, steps):
  """Trains a small head on Gaussians around MEANS, one a label."""
  head = make_head(
    64,
    2,
    token_dim=2,
    condition_dim=3,
    output_channels=objective.output_channels(2),
  )
  graphdef, flat = parameters.flatten(head)
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

  def loss(flat, key):
    head = parameters.unflatten(graphdef, flat)
    label_key, data_key, loss_key = jax.random.split(key, 3)
    label = jax.random.randint(label_key, (256,), 0, 3)
    noise = jax.random.normal(data_key, (256, 2))
    condition = head.embed_condition(jax.nn.one_hot(label, 3))
    return objective.loss(
      lambda x_t, time: head(x_t, time, condition),
      jnp.asarray(MEANS)[label] + STD * noise,
      objective.draw(loss_key, 256, 2),
    ).mean()

  def step(carry, key):
    flat, state = carry
    value, gradient = jax.value_and_grad(loss)(flat, key)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(flat, updates), state), value

  keys = jax.random.split(jax.random.key(5), steps)
  (flat, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))(
    (flat, optimizer.init(flat))
  )
  return parameters.unflatten(graphdef, flat)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'solver', 'count'), [('flow', 'heun', 10), ('ddpm', 'ancestral', 50)]
)
def test_trained_head_writes_the_gaussian_of_its_label(name, solver, count):
  objective = make_objective(name)
  head = train(objective, 600)
  label = np.repeat(np.arange(3), 500)
  condition = head.embed_condition(jax.nn.one_hot(label, 3))

  @jax.jit
  def draw(keys):
    return make_solver(solver, objective, count).sample(
      lambda x_t, time: head(x_t, time, condition), keys, 2
    )

  x = draw(jax.random.split(jax.random.key(6), len(label)))
  x = np.asarray(x).reshape(3, 500, 2)
  np.testing.assert_allclose(x.mean(axis=1), MEANS, atol=0.1)
  np.testing.assert_allclose(x.std(axis=1), STD, atol=0.1)
