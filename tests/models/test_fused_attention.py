"""The kernel beside plain attention, and through the TPU's compiler."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec

from tests import process
from unifluid_jax.models.attention import attend
from unifluid_jax.models.fused_attention import (
  attend_fused,
  block_length,
  is_fused,
)
from unifluid_jax.planning.topology import describe, prepare
from unifluid_jax.training.sharding import MeshConfig, make_mesh, on_mesh

# Rows, slots, heads, kv-heads, head_dim, cap.
CASES = {
  'grouped_and_capped': (2, 384, 4, 2, 128, 50.0),
  'one_head': (1, 128, 1, 1, 256, None),
  'in_blocks': (1, 1024, 2, 1, 128, 5.0),
}


def arrays(rows, slots, heads, kv_heads, head_dim, dtype=jnp.float32):
  """Queries, keys, values, mask and the gradient of what comes out.

  Slot 3 is seen by nobody, slot 5 sees nobody.
  """
  keys = jax.random.split(jax.random.key(0), 5)
  shape = (rows, slots, heads, head_dim)
  few = (rows, slots, kv_heads, head_dim)
  queries = 3 * head_dim**-0.5 * jax.random.normal(keys[0], shape)
  mask = jax.random.uniform(keys[3], (rows, slots, slots)) < 0.5
  mask = mask.at[:, :, 3].set(False).at[:, 5].set(False)
  floats = (
    queries,
    jax.random.normal(keys[1], few),
    jax.random.normal(keys[2], few),
  )
  gradient = jax.random.normal(keys[4], shape)
  return (*(x.astype(dtype) for x in floats), mask), gradient


def results(function, inputs, gradient, softcap):
  """The output, and the gradients of queries, keys and values."""
  *floats, mask = inputs
  out, pull = jax.vjp(
    lambda *floats: function(*floats, mask, softcap=softcap), *floats
  )
  return out, *pull(gradient.astype(out.dtype))


interpreted = functools.partial(attend_fused, interpret=True)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_the_kernel_is_plain_attention(case):
  *shape, softcap = case
  inputs, gradient = arrays(*shape)
  found = results(interpreted, inputs, gradient, softcap)
  wanted = results(attend, inputs, gradient, softcap)
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


def test_in_bfloat16_it_is_as_near_to_float32_as_plain_attention():
  *shape, softcap = CASES['grouped_and_capped']
  inputs, gradient = arrays(*shape)
  exact = results(attend, inputs, gradient, softcap)
  rounded, _ = arrays(*shape, dtype=jnp.bfloat16)
  for fused, plain, true in zip(
    results(interpreted, rounded, gradient, softcap),
    results(attend, rounded, gradient, softcap),
    exact,
    strict=True,
  ):
    assert fused.dtype == jnp.bfloat16
    errors = [
      float(jnp.linalg.norm(x.astype(jnp.float32) - true))
      for x in (fused, plain)
    ]
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize(
  ('shape', 'block'),
  [
    ((384, 384, 256), 384),
    ((1024, 1024, 128), 256),
    ((640, 640, 128), 128),  # of 640, no other multiple of 128 divides it
    ((144, 144, 128), 0),
    ((384, 384, 72), 0),
    ((4096, 4096, 128), 0),  # no block of queries fits
  ],
)
def test_blocks_divide_the_row_and_fit(shape, block):
  assert block_length(*shape) == block


@pytest.mark.slow
def test_eight_devices():
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-m', 'tests.models.fused_on_a_mesh'],
    cwd=process.ROOT,
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '4 arrays on 8 devices\n', done.stderr


@pytest.fixture(scope='module')
def compiler():
  """Libtpu, whose programs no cache keeps."""
  prepare()
  compilation_cache.reset_cache()
  yield
  jax.config.update('jax_enable_compilation_cache', True)
  compilation_cache.reset_cache()


def shapes(mesh, rows, slots, heads, kv_heads, head_dim):
  split = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))

  def array(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

  few = array(rows, slots, kv_heads, head_dim)
  queries = array(rows, slots, heads, head_dim)
  return queries, few, few, array(rows, slots, slots, dtype=jnp.bool_)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('topology', 'shape', 'tensor'),
  [
    ('v5e:2x2', (8, 384, 8, 4, 256), 1),  # Gemma-2 2B's
    ('v6e:2x2', (8, 384, 8, 4, 256), 2),
    ('v5p:2x2x1', (4, 1280, 4, 1, 256), 1),  # Gemma-3 1B's
    ('v4:2x2x1', (4, 2048, 4, 4, 128), 1),
  ],
)
def test_it_compiles_for_tpus(compiler, topology, shape, tensor):
  """Forward and backward, of which neither writes an array of scores."""
  slices = describe(topology, 1)
  mesh = make_mesh(MeshConfig(tensor=tensor), slices.devices)
  *floats, mask = shapes(mesh, *shape)

  def loss(queries, keys, values, mask):
    assert is_fused(queries, keys)
    out = attend_fused(queries, keys, values, mask, softcap=50.0)
    return out.astype(jnp.float32).sum()

  step = jax.jit(on_mesh(mesh, jax.value_and_grad(loss, (0, 1, 2))))
  text = step.lower(*floats, mask).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 2
  slots = shape[1]
  assert re.search(rf's8\[[\d,]*{slots},{slots}]', text)
  assert not re.search(rf'f(16|32)\[[\d,]*{slots},{slots}]', text)


def test_it_is_left_to_xla_where_it_cannot_be(compiler):
  slices = describe('v5e:2x2', 1)
  mesh = make_mesh(MeshConfig(tensor=4), slices.devices)
  cases = {
    (4, 384, 8, 4, 256): True,
    (4, 384, 8, 2, 256): False,  # two kv-heads over four chips
    (4, 384, 8, 4, 64): False,
  }
  for shape, expected in cases.items():
    assert traced_as_fused(mesh, shape) == expected
  cpu = make_mesh(MeshConfig(), jax.devices()[:1])
  assert not traced_as_fused(cpu, (4, 384, 8, 4, 256))


def traced_as_fused(mesh, shape):
  found = []
  queries, keys, *_ = shapes(mesh, *shape)
  jax.eval_shape(
    on_mesh(mesh, lambda *args: found.append(is_fused(*args))), queries, keys
  )
  return found == [True]
