import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unifluid_jax.config.sections.optimizer import OptimizerConfig
from unifluid_jax.training.optimizer import (
  advance_if_finite,
  ema_update,
  make_optimizer,
  make_schedule,
)
from unifluid_jax.utils.errors import UserError


@pytest.mark.parametrize(
  ('schedule', 'expected'),
  [
    ('constant', {0: 0.0, 5: 0.5, 10: 1.0, 55: 1.0, 100: 1.0}),
    ('cosine', {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0}),
    ('rsqrt', {0: 0.0, 5: 0.5, 10: 1.0, 40: 0.5, 90: 1 / 3}),
  ],
)
def test_schedules(schedule, expected):
  config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup=10)
  rate = make_schedule(config, 100)
  for step, value in expected.items():
    np.testing.assert_allclose(rate(step), value, atol=1e-6)


def test_matrices_decay_and_vectors_biases_heads_and_norms_do_not():
  config = OptimizerConfig(
    learning_rate=0.1, weight_decay=0.5, no_decay=('^head/',)
  )
  axes = {
    'a/matrix': ('embed', 'mlp'),
    'a/vector': ('embed',),
    'a/stacked_norm': ('layers', 'embed'),
    'a/stacked_matrix': ('layers', 'embed', 'mlp'),
    'a/query_bias': ('layers', 'heads', 'head_dim'),
    'a/modulation/bias': (None, 'mlp'),
    'head/matrix': ('embed', 'mlp'),
  }
  params = {name: jnp.ones((2,) * len(axis)) for name, axis in axes.items()}
  optimizer = make_optimizer(config, 10, axes)
  zero = {name: jnp.zeros_like(value) for name, value in params.items()}
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  for name, update in updates.items():
    expected = -0.05 if name in ('a/matrix', 'a/stacked_matrix') else 0
    np.testing.assert_allclose(update, expected, atol=1e-7, err_msg=name)


def test_lr_multipliers_scale_updates_by_the_first_match():
  config = OptimizerConfig(
    learning_rate=0.1,
    weight_decay=0.0,
    lr_multipliers={'^head/out': 4.0, '^head/': 0.5},
  )
  names = ('a', 'head/in', 'head/out')
  params = {name: jnp.zeros(3) for name in names}
  gradient = {name: jnp.ones(3) for name in names}
  optimizer = make_optimizer(config, 10, dict.fromkeys(names, (None,)))
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  # Adam's first step is the learning rate.
  for name, rate in zip(names, (0.1, 0.05, 0.4), strict=True):
    np.testing.assert_allclose(updates[name], -rate, rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
  """Adam's first step is its sign: clipping shows in the first moment."""
  config = OptimizerConfig(learning_rate=1.0, grad_clip_norm=1.0, b1=0.0)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  optimizer = make_optimizer(config, 10, {'a': (None,), 'b': (None,)})
  gradient = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  _, state = optimizer.update(gradient, optimizer.init(params), params)
  moments = state[1][0].mu
  np.testing.assert_allclose(moments['a'], 0.6, rtol=1e-5)
  np.testing.assert_allclose(moments['b'], 0.8, rtol=1e-5)


def test_the_average_forgets_its_start_in_a_short_run():
  ema = {'a': jnp.zeros(())}
  for step in range(200):
    ema = ema_update(ema, {'a': jnp.ones(())}, jnp.float32(step), 0.9999)
  assert ema['a'] > 0.999


def test_an_unknown_schedule_is_refused():
  with pytest.raises(UserError, match="schedule is 'linear'"):
    OptimizerConfig(schedule='linear')


def test_rsqrt_without_a_warm_up_is_refused():
  with pytest.raises(UserError, match='set optimizer.warmup'):
    OptimizerConfig(schedule='rsqrt')


def test_muon_orthogonalizes_the_matrices_of_transformer_blocks_only():
  axes = {
    'gemma/stack/up': ('layers', 'embed', 'mlp'),
    'gemma/stack/gate_up': ('layers', 'embed', None, 'mlp'),
    'gemma/stack/out': ('layers', 'heads', 'head_dim', 'embed'),
    'gemma/stack/query_bias': ('layers', 'heads', 'head_dim'),
    'head/blocks/up': ('layers', 'embed', 'mlp'),
    'embedding': ('vocab', 'embed'),
  }
  shapes = {
    'gemma/stack/up': (2, 3, 5),
    'gemma/stack/gate_up': (2, 3, 2, 5),
    'gemma/stack/out': (2, 2, 2, 5),
    'gemma/stack/query_bias': (2, 2, 2),
    'head/blocks/up': (2, 3, 5),
    'embedding': (7, 3),
  }
  rng = np.random.default_rng(0)
  params = {k: jnp.zeros(shape) for k, shape in shapes.items()}
  gradient = {
    k: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for k, shape in shapes.items()
  }
  kwargs = {'learning_rate': 0.1, 'weight_decay': 0.0, 'grad_clip_norm': 1e9}
  updates = {}
  for rule in ('muon', 'adamw'):
    optimizer = make_optimizer(OptimizerConfig(rule=rule, **kwargs), 10, axes)
    updates[rule], _ = optimizer.update(
      gradient, optimizer.init(params), params
    )
  for name in ('gemma/stack/query_bias', 'head/blocks/up', 'embedding'):
    np.testing.assert_allclose(updates['muon'][name], updates['adamw'][name])
  # One matrix per layer, and per projection of a fused array. All singular
  # values of an update are alike; its RMS is that of AdamW's.
  matrices = {
    'gemma/stack/up': updates['muon']['gemma/stack/up'],
    'gemma/stack/gate_up': jnp.moveaxis(
      updates['muon']['gemma/stack/gate_up'], 2, 1
    ),
    'gemma/stack/out': updates['muon']['gemma/stack/out'].reshape(2, 4, 5),
  }
  for name, matrix in matrices.items():
    values = np.linalg.svd(matrix, compute_uv=False)
    longest = max(matrix.shape[-2:])
    np.testing.assert_allclose(
      values, 0.1 * 0.2 * longest**0.5, rtol=0.35, err_msg=name
    )


class State(NamedTuple):
  step: jax.Array
  params: dict[str, jax.Array]
  bad_step: jax.Array


@pytest.mark.parametrize(
  ('loss', 'norm', 'is_finite'),
  [
    (1.0, 2.0, True),
    (math.nan, 2.0, False),
    (1.0, math.inf, False),
    (-math.inf, math.nan, False),
  ],
)
def test_a_step_that_is_not_finite_changes_no_parameter(loss, norm, is_finite):
  old = State(jnp.int32(7), {'w': jnp.ones(2)}, jnp.int32(-1))
  new = old._replace(params={'w': jnp.full(2, 3.0 if is_finite else math.nan)})
  state = advance_if_finite(old, new, jnp.float32(loss), jnp.float32(norm))
  assert state.step == 8 and state.bad_step == (-1 if is_finite else 7)
  np.testing.assert_array_equal(state.params['w'], 3 if is_finite else 1)
  # Only the first bad step is remembered.
  later = advance_if_finite(state, state, jnp.float32(1), jnp.float32(1))
  assert later.step == 9 and later.bad_step == state.bad_step
