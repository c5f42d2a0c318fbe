"""The kernel beside plain attention, and through the TPU's compiler."""

import functools
import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec

from tests import process
from unifluid_jax.models import gemma, parameters
from unifluid_jax.models.attention import attend
from unifluid_jax.models.fused_attention import (
  attend_fused,
  block_length,
  is_fused,
)
from unifluid_jax.models.gemma import Gemma, GemmaConfig
from unifluid_jax.planning.topology import describe, prepare
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh, on_mesh

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
  ('length', 'groups', 'head_dim', 'block'),
  [
    (384, 2, 256, 384),  # Gemma-2 2B's
    (512, 8, 256, 256),  # Gemma-1 2B's
    (640, 8, 128, 320),
    (144, 1, 128, 0),
    (384, 1, 72, 0),
    (4096, 1, 128, 0),  # no block of queries has room
  ],
)
def test_blocks_divide_the_row_and_have_room(length, groups, head_dim, block):
  assert block_length(length, groups, head_dim) == block


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


def shapes(mesh, rows, slots, heads, kv_heads, head_dim, dtype=jnp.bfloat16):
  split = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))

  def array(*shape, dtype=dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

  few = array(rows, slots, kv_heads, head_dim)
  queries = array(rows, slots, heads, head_dim)
  return queries, few, few, array(rows, slots, slots, dtype=jnp.bool_)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('topology', 'shape', 'split'),
  [
    ('v5e:2x2', (384, 8, 4, 256), {}),  # Gemma-2 2B's
    ('v6e:2x2', (640, 8, 4, 256), {'tensor': 2}),
    ('v5p:2x2x1', (512, 8, 1, 256), {'data': 2}),  # Gemma-1 2B's
    ('v4:2x2x1', (768, 8, 1, 256), {}),  # nearly all of VMEM
  ],
)
def test_it_compiles_for_tpus(compiler, topology, shape, split):
  """Forward and backward, and neither writes scores to memory.

  Of many rows, since XLA would keep a few in VMEM, beside the kernel's own.
  """
  slices = describe(topology, 1)
  mesh = make_mesh(MeshConfig(**split), slices.devices)
  rows = 64 * len(slices.devices) // mesh.shape['tensor']
  arguments = shapes(mesh, rows, *shape)

  def compiled(attend):
    def sums(queries, keys, values, mask):
      def loss(*floats):
        out = attend(*floats, mask, softcap=50.0)
        return out.astype(jnp.float32).sum()

      return jax.value_and_grad(loss, (0, 1, 2))(queries, keys, values)

    return jax.jit(on_mesh(mesh, sums)).lower(*arguments).compile().as_text()

  text = compiled(attend_fused)
  assert text.count('custom_call_target="tpu_custom_call"') == 2
  slots, heads, *_ = shape
  scores = 64 * slots**2 * heads // mesh.shape['tensor']
  assert max(sizes_of_floats(text)) < scores
  if topology == 'v5e:2x2':
    assert max(sizes_of_floats(compiled(attend))) >= scores


def sizes_of_floats(text):
  """Elements of each array of floats in a program."""
  for shape in re.findall(r'(?:bf16|f32)\[([\d,]+)\]', text):
    yield math.prod(map(int, shape.split(',')))


def test_it_is_left_to_xla_where_it_cannot_be():
  cases = {
    (4, 384, 8, 4, 256): True,
    (4, 384, 8, 2, 256): False,  # two kv-heads over four chips
    (4, 384, 2, 1, 256): False,  # no head divides
    (4, 384, 8, 4, 64): False,
    (3, 384, 8, 4, 256): True,
  }
  for shape, expected in cases.items():
    assert traced_as_fused(shape, tensor=4) == expected, shape
  assert not traced_as_fused((3, 384, 8, 4, 256), fsdp=2)  # three rows
  assert not traced_as_fused((4, 384, 8, 4, 256), platform='cpu')
  assert not traced_as_fused((4, 384, 8, 4, 256), dtype=jnp.float32)


def traced_as_fused(shape, dtype=jnp.bfloat16, **mesh):
  rows, slots, heads, kv_heads, head_dim = shape
  queries = jax.ShapeDtypeStruct((rows, slots, heads, head_dim), dtype)
  keys = jax.ShapeDtypeStruct((rows, slots, kv_heads, head_dim), dtype)
  found = []
  with jax.sharding.use_abstract_mesh(abstract_mesh(**mesh)):
    jax.eval_shape(lambda *args: found.append(is_fused(*args)), queries, keys)
  return found == [True]


def abstract_mesh(data=1, fsdp=1, tensor=1, platform='tpu'):
  return jax.sharding.AbstractMesh(
    (data, fsdp, tensor),
    ('data', 'fsdp', 'tensor'),
    (jax.sharding.AxisType.Auto,) * 3,
    abstract_device=jax.sharding.AbstractDevice(
      device_kind='a chip', num_cores=1, platform=platform
    ),
  )


SMALL = GemmaConfig(
  vocab_size=32,
  width=64,
  layers=2,
  mlp_dim=64,
  heads=2,
  kv_heads=1,
  head_dim=128,
  attention_softcap=20.0,
)


def gradients(model):
  """Of a row of 128 slots, which sees itself up to each slot."""
  graphdef, flat = parameters.flatten(model)
  positions = jnp.arange(128)[None]
  mask = jnp.tril(jnp.ones((1, 128, 128), bool))
  x = jax.random.normal(jax.random.key(1), (1, 128, 64))

  def loss(flat):
    out, _ = parameters.unflatten(graphdef, flat)(x, positions, mask)
    return (out**3).sum()

  return jax.grad(loss)(flat)


@pytest.mark.parametrize('remat', ['none', 'sublayers'])
def test_a_decoder_learns_the_same_by_the_kernel(monkeypatch, remat):
  decoder = Gemma(SMALL, rngs=nnx.Rngs(0), remat=remat)
  wanted = gradients(decoder)
  calls = []

  def counted(*args, **kwargs):
    calls.append(args)
    return interpreted(*args, **kwargs)

  monkeypatch.setattr(gemma, 'is_fused', lambda *_: True)
  monkeypatch.setattr(gemma, 'attend_fused', counted)
  found = gradients(decoder)
  assert calls
  for name, value in wanted.items():
    np.testing.assert_allclose(
      found[name], value, rtol=1e-4, atol=1e-4 * float(jnp.abs(value).max())
    )
  calls.clear()
  gradients(Gemma(SMALL, fused=False, rngs=nnx.Rngs(0), remat=remat))
  assert not calls


def test_a_cache_is_never_read_by_the_kernel(monkeypatch):
  monkeypatch.setattr(gemma, 'is_fused', lambda *_: True)
  monkeypatch.setattr(gemma, 'attend_fused', None)
  decoder = Gemma(SMALL, rngs=nnx.Rngs(0))
  cache = decoder.init_cache(1, 128)
  mask = jnp.ones((1, 128, 128), bool)
  x, positions = jnp.ones((1, 128, 64)), jnp.arange(128)[None]
  out, _ = decoder(x, positions, mask, cache)
  assert out.shape == x.shape
