"""Logical axes to mesh axes, and activations that are held to them."""

import collections

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from tests import tiny
from unifluid_jax import masking
from unifluid_jax.sharding.logical_axes import constrain, partition_spec
from unifluid_jax.training.losses import text_loss_sum


def mesh(data=2, fsdp=4, tensor=2):
  return AbstractMesh(
    (data, fsdp, tensor), ('data', 'fsdp', 'tensor'), (AxisType.Auto,) * 3
  )


@pytest.mark.parametrize(
  ('axes', 'shape', 'expected'),
  [
    (('vocab', 'embed'), (10, 8), ('tensor', 'fsdp')),
    (('layers', 'embed', 'mlp'), (3, 8, 6), (None, 'fsdp', 'tensor')),
    # Neither divides.
    (('vocab', 'embed'), (9, 6), (None, None)),
    # A mesh axis splits one axis only, the first.
    (('mlp', 'vocab'), (4, 4), ('tensor', None)),
    (('rows', None, 'vocab'), (16, 5, 4), (('data', 'fsdp'), None, 'tensor')),
    (('rows', 'embed'), (16, 8), (('data', 'fsdp'), None)),
    (('rows', None), (4, 8), (None, None)),
  ],
)
def test_a_spec_follows_the_table(axes, shape, expected):
  assert partition_spec(mesh(), axes, shape) == PartitionSpec(*expected)


def constraints(function, *args):
  """The specs that are asked for while a function is traced."""
  specs = []

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'sharding_constraint':
        specs.append(equation.params['sharding'].spec)
      for inner in jax.core.jaxprs_in_params(equation.params):
        walk(inner)

  walk(jax.make_jaxpr(function)(*args).jaxpr)
  return specs


def test_without_a_mesh_nothing_is_constrained():
  x = jnp.ones((16, 2))
  assert constrain(x, ('rows', None)) is x
  with jax.sharding.use_abstract_mesh(mesh(1, 1, 1)):
    assert constrain(x, ('rows', None)) is x


def test_the_rows_of_the_model_stay_where_they_are(letters):
  """At the embedding, each block's output, the logits and before the head."""
  model = tiny.make_model()
  batch = tiny.batch(letters)
  batch = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=0), batch)
  tokens = tiny.tokens(8, 2)
  order = tiny_order(8)

  def forward(tokens):
    hidden = model.row_hidden_states(batch, tokens, order)
    text = text_loss_sum(
      model.gemma,
      model.text_hidden(hidden, batch.text_slots),
      batch.text_targets,
      batch.text_weights,
    )
    return text, model.image_targets(hidden, batch, tokens, order)

  rows = PartitionSpec(('data', 'fsdp'), None, None)
  logits = PartitionSpec(('data', 'fsdp'), None, 'tensor')
  with jax.sharding.use_abstract_mesh(mesh()):
    found = constraints(forward, tokens)
  found = collections.Counter(map(str, found))
  assert found[str(logits)] == 1
  # Embedding and block of the encoder and of the decoder; texts; head.
  assert found[str(rows)] >= 6
  # The table of a vocabulary, and those of positions: by shares of the width.
  assert found[str(PartitionSpec('data', None, 'fsdp'))] >= 1
  assert found[str(PartitionSpec('data', None, None, 'fsdp'))] == 2


def tiny_order(rows):
  raster = jnp.broadcast_to(jnp.arange(tiny.TOKENS), (rows, 2, tiny.TOKENS))
  return masking.Order(raster, jnp.zeros((rows, 2), jnp.int32))
