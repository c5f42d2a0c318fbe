"""Plans from the command line, compiled for a TPU that is not there."""

import json

import pytest

from experiments import unifluid_2b_sample
from tests import process
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.planning.planner import PlanSettings
from unifluid_jax.planning.sweep import split, variants
from unifluid_jax.planning.topology import Slices
from unifluid_jax.utils.chips import CHIPS

CONFIG = '--config=experiments/unifluid_2b.py:tiny'
ROWS = ('--config.data.batch_rows=4', '--config.data.examples=4')
# What the recipes have and their small variants lack: bfloat16, rows and heads
# that the attention kernel is made for, a vocabulary in chunks, two copies.
LIKE_THE_RECIPE = (
  '--config.model.dtype=bfloat16',
  '--config.data.row_capacity.length=128',
  '--config.model.gemma.head_dim=128',
  '--config.model.gemma.vocab_size=40000',
  '--config.model.remat=sublayers',
  '--config.mesh.data=2',
)
KEYS = (
  'topology',
  'chips',
  'hbm_gib_per_chip',
  'hbm_limit_gib',
  'model_flops_per_step',
  'hardware_flops_per_step',
  'remat_factor',
  'mfu_bound',
  'bound_by',
  'images_per_s',
  'chip_hours',
  'compile_s',
  'microbatches',
)


@pytest.mark.slow
def test_the_training_step_compiles_for_a_tpu(tmp_path):
  file = tmp_path / 'plan.json'
  output = process.succeed(
    'plan',
    CONFIG,
    *ROWS,
    *LIKE_THE_RECIPE,
    '--topology=v5e:2x2',
    f'--json={file}',
  )
  plan = json.loads(file.read_text())
  assert {*KEYS} <= {*plan}
  assert (plan['topology'], plan['chips']) == ('v5e:2x2', 4)
  assert plan['hbm_limit_gib'] == 15.75
  parts = plan['hbm_components_gib']
  # Adam's two moments, and the average, are as large as the parameters.
  assert parts['optimizer'] == pytest.approx(2 * parts['parameters'], rel=0.01)
  assert parts['ema'] == parts['parameters']
  assert sum(parts.values()) == pytest.approx(plan['hbm_gib_per_chip'])
  assert plan['ici_bytes_per_chip'] > 0 == plan['dcn_bytes_per_chip']
  seconds = plan['roofline_s']
  assert seconds[plan['bound_by']] == max(seconds.values())
  assert plan['images_per_s'] == pytest.approx(4 / max(seconds.values()))
  assert 'bound by' in output
  assert output.startswith('unifluid_2b, train, on v5e:2x2')  # not libtpu

  process.succeed('plan', f'--table={tmp_path}')
  assert '| v5e:2x2 | 4 | 4 | 2x2x1 |' in (tmp_path / 'README.md').read_text()

  (tmp_path / 'other.json').write_text('{"chips": 4}')
  assert 'other.json is not a plan' in process.fail(
    'plan', f'--table={tmp_path}'
  )


@pytest.mark.slow
def test_a_step_on_a_mesh_of_three_axes_compiles(tmp_path):
  file = tmp_path / 'plan.json'
  process.succeed(
    'plan',
    CONFIG,
    *LIKE_THE_RECIPE,
    '--config.data.batch_rows=16',
    '--config.mesh.data=1',
    '--config.mesh.fsdp=2',
    '--config.mesh.tensor=2',
    '--topology=v5e:2x2',
    '--num_slices=2',
    f'--json={file}',
  )
  plan = json.loads(file.read_text())
  assert (plan['mesh'], plan['fits']) == ('2x2x2', True)
  assert plan['dcn_bytes_per_chip'] > 0


@pytest.mark.slow
def test_the_sampler_compiles_for_two_slices(tmp_path):
  file = tmp_path / 'plan.json'
  process.succeed(
    'plan',
    '--config=experiments/unifluid_2b_sample.py:tiny',
    '--topology=v6e:2x2',
    '--num_slices=2',
    '--program=sample',
    '--images=8',
    f'--json={file}',
  )
  plan = json.loads(file.read_text())
  assert (plan['chips'], plan['mesh'], plan['fits']) == (8, '8x1x1', True)


@pytest.mark.slow
def test_a_sweep_is_written_so_that_it_can_go_on(tmp_path):
  file = tmp_path / 'sweep.json'
  command = (
    'plan',
    '--config=experiments/unifluid_2b_sample.py:tiny',
    '--topology=v5e:2x2',
    '--program=sample',
    '--images=1',  # of its variants, only two images over two groups divide
    '--sweep',
    f'--json={file}',
  )
  output = process.succeed(*command)
  first = json.loads(file.read_text())
  (only,) = first['plans']
  assert (only['batch'], only['mesh']) == (2, '2x1x2')
  assert first['fastest'] == only
  assert 'The fastest that fits:' in output
  config = unifluid_2b_sample.get_config('tiny')
  setting = PlanSettings(
    'unifluid_2b_sample', build(Experiment, config), 'sample', 1
  )
  slices = Slices('v5e:2x2', CHIPS['v5e'], 4, (None,) * 4, 1)
  ways = list(variants(setting, slices))
  assert split(ways, slices, first['plans']) == ([only], [])
  (message,) = [
    line
    for line in process.fail(*command[:-2], command[-1]).splitlines()
    if 'sweep.json' in line
  ]
  assert 'is of a sweep; name another file' in message
  assert json.loads(file.read_text()) == first
  file.write_text('{}')
  assert 'sweep.json does not hold a sweep' in process.fail(*command)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--topology=v5e:3x5'], 'libtpu knows no topology v5e:3x5; near it: '),
    (['--topology=v5:4x4'], 'did you mean v5'),
    (['--topology=V5E:0x2'], 'v6e, tpu7x; did you mean v5e?'),
    (
      ['--topology=v5e:2x2', '--json=none/plan.json'],
      '--json=none/plan.json: No such file or directory; name a file in',
    ),
    (['--topology=v5p:4x4'], 'a slice of v5p has 3 dimensions'),
    (['--topology=v5litepod:4x4'], 'tpu7x; did you mean v5e?'),
    (['--topology=v5e:2x2', '--config.data.batch_rows=6'], 'use 4 or 8'),
    (
      [
        '--topology=v5e:2x2',
        '--num_slices=3',
        '--config.data.batch_rows=8',
        '--sweep',
      ],
      'use 12',
    ),
    (
      ['--topology=v5e:2x2', '--config.mesh.tensor=3'],
      'the product of the others to 2 or 4; it is 3',
    ),
    ([], '--topology must be given'),
  ],
)
def test_a_mistake_gives_one_message(flags, message):
  assert message in process.fail('plan', CONFIG, *flags)
