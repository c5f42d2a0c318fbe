"""Rooflines, and a program that does not fit."""

import types

import jax
import jax.numpy as jnp
import pytest

from experiments import unifluid_2b, unifluid_2b_sample
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.models.stack import REMAT_POLICIES
from unifluid_jax.planning import summary
from unifluid_jax.planning.device_memory import (
  Overflow,
  find_overflow,
  read_overflow,
)
from unifluid_jax.planning.estimate import StepCost, estimate, roofline
from unifluid_jax.planning.lowering import LoweredProgram
from unifluid_jax.planning.planner import PlanSettings
from unifluid_jax.planning.sweep import fastest, split, variants
from unifluid_jax.planning.topology import Slices
from unifluid_jax.planning.traffic import Traffic
from unifluid_jax.sharding.mesh import MeshConfig, sizes_in_slice
from unifluid_jax.utils.chips import CHIPS
from unifluid_jax.utils.errors import UserError

# Two chips that are two devices each.
SLICES = Slices('tpu7x:1x1x2', CHIPS['tpu7x'], 2, (None,) * 4, 1)


def gib(count: int) -> jax.ShapeDtypeStruct:
  """An array of so many GiB, on one device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct((count, 2**30), jnp.uint8, sharding=sharding)


def test_each_resource_takes_its_time():
  work = StepCost(10, 1e15, 2307e12 * 2 * 3, 100)
  seconds = roofline(SLICES, work, Traffic(7380e9 / 2, 600e9, 12.5e9 * 2))
  assert seconds == pytest.approx(
    {'arithmetic': 3, 'hbm': 1, 'ici': 2, 'dcn': 4}
  )


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
      'for HLO temporaries (15.94G) exceeds available HBM (15.75G).',
      Overflow(15.94, 15.75, True),
    ),
    (
      'Ran out of memory in memory space hbm. Used 2.5T of 16128M hbm.',
      Overflow(2560, 15.75, False),
    ),
    ('Mosaic failed to compile', None),
  ],
)
def test_the_compilers_words_for_too_much(message, expected):
  assert read_overflow(message) == expected


@pytest.mark.parametrize(
  'short', [Overflow(90.0, 94.75, True), Overflow(100.0, 94.75, False)]
)
def test_what_does_not_fit_is_a_result(short):
  program = LoweredProgram({'parameters': gib(10)}, short, 2.0)
  plan = {'config': 'x', 'program': 'train', 'batch': 8, 'mesh': '1'}
  plan |= {'remat': 'full', 'microbatches': 1}
  plan |= {'hbm_components_gib': {'parameters': 1.0}}
  found = estimate(SLICES, program, StepCost(10, 1e15, 2e15, 100))
  assert not found['fits']
  assert found['hbm_over_gib'] == pytest.approx(10.5)  # of both devices
  assert found['hbm_gib_per_chip'] == pytest.approx(200)
  held = {'parameters': 20, 'activations and temporaries': 180}
  assert found['hbm_components_gib'] == pytest.approx(held)
  assert found['bound_by'] is found['images_per_s'] is None
  text = summary.describe(found | plan)
  assert 'does not fit: 10.50 GiB a chip over the 189.50 GiB' in text
  assert '+10.5, does not fit' in summary.table([found | plan])


class Compiled(jax.stages.Compiled):
  """A program of which the arguments and temporaries are known, in GiB."""

  def __init__(self, arguments, temporaries):
    self._stats = types.SimpleNamespace(
      argument_size_in_bytes=arguments * 2**30,
      output_size_in_bytes=arguments * 2**30,
      alias_size_in_bytes=arguments * 2**30,
      temp_size_in_bytes=temporaries * 2**30,
      generated_code_size_in_bytes=0,
    )

  def memory_analysis(self):
    return self._stats


def test_arguments_need_room_beside_temporaries():
  work = StepCost(10, 1e15, 2e15, 100)
  found = estimate(SLICES, LoweredProgram({}, Compiled(10, 90), 2.0), work)
  assert not found['fits']
  assert found['hbm_over_gib'] == pytest.approx(2 * (100 - 94.75))
  assert find_overflow(Compiled(10, 80), 10, 94.75) is None


def test_the_hours_of_a_run_are_a_lower_bound():
  plan = {'config': 'x', 'program': 'train', 'mesh': '1', 'topology': 'v5e:2x2'}
  plan |= {'slices': 1, 'chips': 4, 'hbm_components_gib': {'batch': 1.0}}
  plan |= {'fits': True, 'bound_by': 'hbm', 'roofline_s': {'hbm': 1.0}}
  numbers = ('remat_factor', 'compile_s', 'hbm_gib_per_chip', 'hbm_limit_gib')
  numbers += ('mfu_bound', 'images_per_s')
  numbers += ('model_flops_per_step', 'hardware_flops_per_step')
  plan |= dict.fromkeys(numbers, 1.0) | {'chip_hours': 1234.0}
  assert 'at least 1,234 chip-hours' in summary.describe(plan)


def test_variants_divide_and_differ():
  """Of 8 rows on 2 x 4 devices."""
  config = unifluid_2b.get_config('tiny')
  config.data.update(batch_rows=8, examples=8)
  experiment = build(Experiment, config)
  slices = Slices('v5e:2x2', CHIPS['v5e'], 8, (None,) * 8, 2)
  training = list(variants(PlanSettings('x', experiment, 'train', 32), slices))
  # 4 rows over 4 groups; 8 and 16 rows over 8 groups of one copy or four, or
  # over 4; each with every remat policy.
  assert len(training) == (1 + 3 + 3) * len(REMAT_POLICIES)
  assert len({way.digest for way in training}) == len(training)
  for way in training:
    mesh = way.experiment.mesh
    assert mesh.data * mesh.tensor <= 4
    assert way.experiment.data.batch_rows == way.experiment.data.examples
  sampling = list(variants(PlanSettings('x', experiment, 'sample', 32), slices))
  # A copy for each device, or for two.
  assert {(way.images, way.mesh(4)) for way in sampling} == {
    (images, MeshConfig(data=-1, fsdp=1, tensor=tensor))
    for images in (16, 32, 64)
    for tensor in (1, 2)
  }
  assert len({way.digest for way in sampling}) == len(sampling) == 6
  with pytest.raises(UserError, match="program is 'serve'"):
    PlanSettings('x', experiment, 'serve', 1)


@pytest.mark.parametrize(
  ('mesh', 'sizes'),
  [
    ({'data': -1, 'fsdp': 1}, {(8, 1, 1)}),
    ({'data': 1, 'fsdp': 1, 'tensor': -1}, {(1, 8, 1), (4, 2, 1), (1, 4, 2)}),
    ({'data': 2, 'fsdp': 1, 'tensor': 4}, {(2, 4, 1), (8, 1, 1), (2, 2, 2)}),
  ],
)
def test_the_meshes_of_a_sweep_hold_the_configs_own(mesh, sizes):
  config = unifluid_2b.get_config('tiny')
  config.mesh = mesh
  config.data.update(batch_rows=16, examples=16)
  experiment = build(Experiment, config)
  slices = Slices('v5e:2x4', CHIPS['v5e'], 8, (None,) * 8, 1)
  own = sizes_in_slice(experiment.mesh, 8)
  training = list(variants(PlanSettings('x', experiment, 'train', 16), slices))
  found = {sizes_in_slice(way.mesh(8), 8) for way in training}
  assert sizes | {own} <= found
  sampling = list(variants(PlanSettings('x', experiment, 'sample', 16), slices))
  assert {sizes_in_slice(way.mesh(8), 8) for way in sampling} == {
    (8 // tensor, 1, tensor) for tensor in {1, 2, own[2]}
  }


def test_a_sampler_is_planned_on_the_mesh_that_it_runs_on():
  config = unifluid_2b.get_config('tiny')
  config.mesh = {'data': 1, 'fsdp': -1, 'tensor': 2}
  setting = PlanSettings('x', build(Experiment, config), 'sample', 8)
  assert sizes_in_slice(setting.mesh(8), 8) == (4, 1, 2)
  config = unifluid_2b_sample.get_config()
  setting = PlanSettings('x', build(Experiment, config), 'sample', 8)
  assert sizes_in_slice(setting.mesh(8), 8) == (2, 1, 4)


def test_a_sweep_makes_what_is_not_there():
  experiment = build(Experiment, unifluid_2b.get_config('tiny'))
  slices = Slices('v5e:2x2', CHIPS['v5e'], 4, (None,) * 4, 1)
  settings = [PlanSettings('x', experiment, 'sample', n) for n in (1, 2, 3)]
  plans = [
    {'setting': settings[n].digest, 'topology': topology, 'slices': 1, 'n': n}
    for n, topology in ((2, 'v5e:2x2'), (0, 'v6e:2x2'), (1, 'v5e:2x2'))
  ]
  found, left = split(settings, slices, plans)
  assert [plan['n'] for plan in found] == [1, 2]
  assert left == settings[:1]


def test_the_fastest_fits():
  plans = [
    {'fits': False},
    {'fits': True, 'images_per_s': 10.0, 'hbm_gib_per_chip': 4.0, 'id': 1},
    {'fits': True, 'images_per_s': 12.1, 'hbm_gib_per_chip': 9.0, 'id': 2},
    {'fits': True, 'images_per_s': 12.2, 'hbm_gib_per_chip': 5.0, 'id': 3},
  ]
  best = fastest(plans)
  assert best is not None and best['id'] == 3
  assert fastest(plans[:1]) is None
