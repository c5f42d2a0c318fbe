"""The text loss of a wide vocabulary, taken in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests import tiny
from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.training import losses


@pytest.fixture(scope='module')
def text():
  """Hidden states, targets and weights."""
  keys = jax.random.split(jax.random.key(0), 3)
  shape, gemma = (3, 7), tiny.CONFIG.gemma
  hidden = 3 * jax.random.normal(keys[0], (*shape, gemma.width))
  targets = jax.random.randint(keys[1], shape, 0, gemma.vocab_size)
  return hidden, targets, jax.random.bernoulli(keys[2], 0.7, shape) * 1.0


@pytest.fixture(scope='module')
def gemma():
  return parameters.flatten(Gemma(tiny.CONFIG.gemma, rngs=nnx.Rngs(0)))


def gradient(gemma, text, loss):
  """The loss, and its gradient to the hidden states and the table."""
  graphdef, flat = gemma

  def of(hidden, table):
    model = parameters.unflatten(graphdef, flat | {'embedding': table})
    return loss(model, hidden, *text[1:])

  return jax.value_and_grad(of, (0, 1))(text[0], flat['embedding'])


def dense(gemma, hidden, targets, weights):
  entropies = optax.softmax_cross_entropy_with_integer_labels(
    gemma.logits(hidden), targets
  )
  return (entropies * weights).sum()


@pytest.mark.parametrize('chunk', [300, 150, 64, 7])
def test_chunks_of_a_vocabulary_do_not_change_the_loss(
  chunk, gemma, text, monkeypatch
):
  monkeypatch.setattr(losses, 'CHUNK', chunk)
  found = gradient(gemma, text, losses.text_loss_sum)
  expected = gradient(gemma, text, dense)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6),
    found,
    expected,
  )


def test_chunks_never_hold_all_logits(gemma, text, monkeypatch):
  monkeypatch.setattr(losses, 'CHUNK', 64)
  jaxpr = jax.make_jaxpr(lambda: gradient(gemma, text, losses.text_loss_sum))()

  def sizes(jaxpr):
    for equation in jaxpr.eqns:
      yield from (variable.aval.shape for variable in equation.outvars)
      for inner in jax.core.jaxprs_in_params(equation.params):
        yield from sizes(inner)

  slots = (3, 7)
  held = [shape[2:] for shape in sizes(jaxpr.jaxpr) if shape[:2] == slots]
  assert (60,) in held
  assert max(jnp.prod(jnp.array(shape)) for shape in held if shape) <= 64
