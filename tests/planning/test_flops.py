"""The written formulas against what XLA counts of a small unrolled stack."""

import collections
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.interpreters import partial_eval

from experiments import quickstart, unifluid_2b
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import UNKNOWN_BOI, make_model_spec
from unifluid_jax.models import parameters
from unifluid_jax.models.vae import VAE, VAEConfig
from unifluid_jax.planning.estimate import sampling_work
from unifluid_jax.planning.lowering import (
  abstract_batch,
  image_sampler,
  prefix_slots,
)
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh
from unifluid_jax.training import flops
from unifluid_jax.training.state import initial_train_state, make_context
from unifluid_jax.training.step import make_train_step

# Norms, softmax, activations and the optimizer are not in the formulas.
SMALL_CHANGE = 0.06


def experiment(remat, frozen=(), edits=False):
  """The quickstart with matrices wide enough to be all that matters."""
  config = quickstart.get_config('tiny')
  config.model.gemma.update(width=256, layers=2, mlp_dim=1024, head_dim=64)
  config.model.encoder.update(width=128, layers=2, mlp_dim=512, heads=2)
  config.model.update(remat=remat, unroll=2, source_tokens=edits)
  config.model.head = {'width': 256, 'depth': 2, 'unroll': 2}
  config.data.row_capacity.source_images = 2 * edits
  config.vae = {'latent_channels': 4, 'widths': (64,), 'patch_size': 4}
  config.init = {'frozen': frozen}
  return build(Experiment, config)


def step_of(experiment):
  """The training step, and the shapes of its state and its batch."""
  spec = make_model_spec(experiment, UNKNOWN_BOI)
  context = make_context(experiment, spec)
  state = jax.eval_shape(
    lambda vae: initial_train_state(experiment, spec, context, vae, {}),
    spec.vae.abstract_parameters,
  )
  batch = abstract_batch(
    experiment, experiment.data.batch_rows, experiment.data.row_capacity
  )
  return make_train_step(context), state, batch


def counted(experiment):
  """XLA's FLOPs of the lowered step; the optimizer's are taken off."""
  step, state, batch = step_of(experiment)
  lowered = jax.jit(step).lower(state, batch)
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return lowered.cost_analysis()['flops'] - 25 * count


FROZEN = {
  'nothing': (),
  'encoder': ('^encoder/',),
  'gemma': ('^gemma/',),
  'all_but_inputs': ('^gemma/', '^encoder/', '^head/'),
  'all_but_head': ('^(?!head/)',),
}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('remat', 'frozen'),
  [
    ('dots', ()),
    ('full', ()),
    *itertools.product(('none', 'sublayers'), FROZEN.values()),
  ],
  ids=lambda value: next((k for k, v in FROZEN.items() if v == value), None),
)
def test_hardware_flops_are_those_of_the_step(remat, frozen):
  small = experiment(remat, frozen)
  expected = counted(small)
  found = flops.hardware_flops(small)
  assert found == pytest.approx(expected, rel=SMALL_CHANGE)


@pytest.mark.slow
def test_hardware_flops_of_edits_are_those_of_the_step():
  edits = experiment('none', edits=True)
  expected = counted(edits)
  assert flops.hardware_flops(edits) == pytest.approx(
    expected, rel=SMALL_CHANGE
  )


@pytest.mark.slow
@pytest.mark.parametrize('order', ['causal', 'masked'])
def test_work_of_the_sampler_is_that_of_its_program(order):
  """Of loops of one turn each, since XLA counts a loop's body once.

  Of layers without a loop XLA drops what nothing needs: in the last one, all of
  the prefix but keys and values.
  """
  config = experiment('none')
  guidance = dataclasses.replace(config.sampling.guidance, scale=2.0)
  sampling = dataclasses.replace(
    config.sampling,
    steps=2,
    solver='ddim',
    head_steps=1,
    guidance=guidance,
  )
  model = dataclasses.replace(config.model, decoding=order)
  config = dataclasses.replace(config, model=model, sampling=sampling)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  executable = image_sampler(config, mesh, 8).executable
  expected = executable.cost_analysis()['flops']
  gemma, slots = config.model.gemma, prefix_slots(config)
  every = 2 * flops.decoder_parameters(config)
  every += flops.attention_flops(config, slots + config.grid**2)
  kept = 4 * gemma.width * gemma.kv_heads * gemma.head_dim
  dropped = 2 * 8 * slots * (every / gemma.layers - kept)
  found = sampling_work(config, 8).model_flops - dropped
  assert found == pytest.approx(expected, rel=SMALL_CHANGE)


def test_recomputed_parts_are_no_model_flops():
  full, none = experiment('full'), experiment('none')
  assert flops.step_flops(full) == flops.step_flops(none)
  forward = flops.forward_flops(full)
  assert flops.hardware_flops(full) - flops.hardware_flops(none) == (
    pytest.approx(forward.decoder + forward.attention + forward.encoder)
  )


@pytest.mark.parametrize('frozen', ['nothing', 'gemma'])
@pytest.mark.parametrize('remat', ['none', 'dots', 'sublayers', 'full'])
def test_flops_of_attention_by_the_kernel(remat, frozen):
  """Against the kernels that a step has: two products forward, five back."""
  config = experiment(remat, FROZEN[frozen])
  data, model = config.data, config.model
  row = dataclasses.replace(data.row_capacity, length=256)
  gemma = dataclasses.replace(model.gemma, head_dim=128)
  model = dataclasses.replace(model, gemma=gemma, dtype='bfloat16')
  config = dataclasses.replace(
    config, data=dataclasses.replace(data, row_capacity=row), model=model
  )
  plain = dataclasses.replace(
    config, model=dataclasses.replace(model, fused_attention=False)
  )
  assert not kernels(plain)
  found = kernels(config)
  assert found['attend_backward'] == 1
  products = 2 * found['attend'] + 5
  # The model's: two forward, four back.
  again = (products - 6) / 2 * flops.forward_flops(config).attention
  expected = flops.hardware_flops(config) - flops.step_flops(config)
  others = flops.hardware_flops(plain) - flops.step_flops(plain)
  others -= (remat != 'none') * flops.forward_flops(config).attention
  assert expected - others == pytest.approx(again)


def kernels(experiment):
  """How often a step calls each kernel, of what it needs."""
  chip = jax.sharding.AbstractDevice(
    device_kind='a chip', num_cores=1, platform='tpu'
  )
  mesh = jax.sharding.AbstractMesh(
    (1, 1, 1),
    ('data', 'fsdp', 'tensor'),
    (jax.sharding.AxisType.Auto,) * 3,
    abstract_device=chip,
  )
  step, *shapes = step_of(experiment)
  with jax.sharding.use_abstract_mesh(mesh):
    traced = jax.make_jaxpr(step)(*shapes)
  needed, _ = partial_eval.dce_jaxpr(
    traced.jaxpr, [True] * len(traced.jaxpr.outvars)
  )
  found: collections.Counter[str] = collections.Counter()

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'pallas_call':
        found[equation.params['name']] += 1
        continue
      for inner in jax.core.jaxprs_in_params(equation.params):
        walk(inner)

  walk(needed)
  return found


def test_a_step_of_the_2b_recipe():
  """6 N a slot for the decoder's 2,024.5 M weights, 2 N for the encoder."""
  config = unifluid_2b.get_config('')
  large = build(Experiment, config)
  slots = 2048 * 384
  forward = flops.forward_flops(large)
  assert 3 * forward.decoder == pytest.approx(6 * 2024.3e6 * slots, rel=2e-3)
  assert forward.encoder == pytest.approx(2 * 412.4e6 * 2048 * 256, rel=0.05)


@pytest.mark.parametrize(
  'config',
  [
    VAEConfig(latent_channels=4, widths=(32, 64, 64), mid_attention=True),
    VAEConfig(
      latent_channels=8,
      widths=(64, 64),
      patch_size=2,
      attention_levels=(1,),
      quant_convs=False,
    ),
  ],
)
def test_the_vae(config):
  side = 64
  graphdef, flat = parameters.flatten(
    nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))
  )

  def count(function, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    lowered = jax.jit(
      lambda flat, x: function(parameters.unflatten(graphdef, flat), x)
    ).lower(flat, x)
    return lowered.cost_analysis()['flops']

  encoder = count(lambda vae, x: vae.encode(x), 1, side, side, 3)
  assert flops.vae_encoder_flops(config, side) == pytest.approx(
    encoder, rel=SMALL_CHANGE
  )
  grid = side // config.stride
  decoder = count(
    lambda vae, x: vae.decode(x), 1, grid, grid, config.latent_channels
  )
  assert flops.vae_decoder_flops(config, side) == pytest.approx(
    decoder, rel=SMALL_CHANGE
  )
