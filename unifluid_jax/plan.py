"""Plans a run on TPUs without having any: does it fit, how fast can it be?

  python -m unifluid_jax.plan --config=experiments/unifluid_2b.py \
      --topology=v5e:16x16 --json=plan.json
  python -m unifluid_jax.plan --config=experiments/unifluid_2b.py \
      --topology=v6e:16x16 --num_slices=2
  python -m unifluid_jax.plan --config=experiments/unifluid_2b_sample.py \
      --topology=v5e:2x4 --program=sample --images=32
  python -m unifluid_jax.plan --table=experiments/plans

The training step of the config, or its image sampler, is compiled by libtpu
(`pip install 'unifluid_jax[plan]'`) for the slice that --topology names: v4,
v5e, v5p, v6e or tpu7x, with the chips along each dimension. HBM is what the
compiler assigns; FLOPs come from formulas, bytes from the compiled program;
time is a roofline: speeds are upper bounds, chip-hours lower ones. A program
that does not fit is reported as such. A sampler uses only --config.mesh.tensor,
as `sample` uses --tensor: each group of that many devices holds a copy of the
model. --sweep tries batches, splits of the mesh, and remat policies, up to 72
compilations, and reports the fastest that fits. It updates its --json file
after each and skips plans that the file has; remove the file after a change of
the code. --table makes a table of the plans in a folder and compiles nothing.
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.planning import summary
from unifluid_jax.planning.planner import PROGRAMS, PlanSettings, plan
from unifluid_jax.planning.sweep import fastest, split, variants
from unifluid_jax.planning.topology import Slices, describe, prepare
from unifluid_jax.training.preflight import check_plan
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.json_output import check_json, write_json
from unifluid_jax.utils.paths import local_path
from unifluid_jax.utils.progress import track

_CONFIG = entry_point.define_config_flag()
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'Slice: family and chips along each side, e.g. v5e:16x16.'
)
_SLICES = flags.DEFINE_integer(
  'num_slices',
  1,
  'Slices, each of that topology.',
  lower_bound=1,
  upper_bound=256,
)
_PROGRAM = flags.DEFINE_enum(
  'program', 'train', PROGRAMS, 'The training step, or the image sampler.'
)
_IMAGES = flags.DEFINE_integer(
  'images',
  32,
  'Images of a batch of the sampler.',
  lower_bound=1,
  upper_bound=2**20,
)
_JSON = flags.DEFINE_string(
  'json', None, 'File to write the plan to as JSON; a sweep resumes from it.'
)
_SWEEP = flags.DEFINE_bool('sweep', False, 'Find the fastest that fits.')
_TABLE = flags.DEFINE_string(
  'table', None, 'Folder of plans; its README.md is written.'
)


def main() -> None:
  """Plans what the flags ask for."""
  if _TABLE.value is not None:
    _write_table(local_path(_TABLE.value, f'--table={_TABLE.value}'))
    return
  experiment = build(Experiment, entry_point.require(_CONFIG))
  _check_json()
  file = config_flags.get_config_filename(flags.FLAGS['config'])
  prepare()
  slices = describe(entry_point.require(_TOPOLOGY), _SLICES.value)
  name = pathlib.Path(file).stem
  experiment = check_plan(experiment)
  setting = PlanSettings(name, experiment, _PROGRAM.value, _IMAGES.value)
  if _SWEEP.value:
    _sweep(setting, slices)
    return
  result = plan(setting, slices)
  write_json(_JSON.value, result)
  sys.stdout.write(f'{summary.describe(result)}\n')


def _sweep(setting: PlanSettings, slices: Slices) -> None:
  settings = list(variants(setting, slices))
  if not settings:
    plan(setting, slices)  # Tells of the batch that does, before compiling.
  before = _planned_before()
  plans, left = split(settings, slices, before)
  others = [found for found in before if found not in plans]
  for way in track(left, f'{len(left)} settings, number'):
    plans.append(plan(way, slices))
    result = {'fastest': fastest(plans), 'plans': plans + others}
    write_json(_JSON.value, result)
  sys.stdout.write(summary.table(plans))
  best = fastest(plans)
  if best is None:
    sys.stdout.write('\nNone of them fits.\n')
  else:
    sys.stdout.write(f'\nThe fastest that fits:\n{summary.describe(best)}\n')


def _planned_before() -> list[summary.Plan]:
  file = _json_path()
  if file is None or not file.exists():
    return []
  try:
    plans = parse_json(file.read_text(encoding='utf-8'))['plans']
    summary.table(plan for plan in plans if plan['setting'])
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(
      f'{file} does not hold a sweep; name another file, or remove it'
    ) from error
  except OSError as error:
    raise UserError(f'--json={file}: {error.strerror}') from error
  return plans


def _check_json() -> None:
  """Checks output files before minutes of compiling."""
  file = _json_path()
  if file is not None and not _SWEEP.value and _is_of_sweep(file):
    raise UserError(
      f'--json={_JSON.value} is of a sweep; name another file, or go on '
      'with --sweep'
    )
  check_json(_JSON.value)


def _json_path() -> pathlib.Path | None:
  name = _JSON.value
  return None if name is None else local_path(name, f'--json={name}')


def _is_of_sweep(file: pathlib.Path) -> bool:
  try:
    return 'plans' in parse_json(file.read_text(encoding='utf-8'))
  except (OSError, ValueError, TypeError):
    return False  # It does not exist, or is another file.


def _write_table(folder: pathlib.Path) -> None:
  files = sorted(folder.glob('*.json'))
  if not files:
    raise UserError(f'--table={folder} has no plans; write some with --json')
  text = (
    '# Plans\n\nWritten by `bash launch/plans.sh`; speeds are upper bounds, '
    'chip-hours lower ones, see `python -m unifluid_jax.plan --help`.\n\n'
  )
  text += summary.table(map(_read_plan, files))
  try:
    (folder / 'README.md').write_text(text, encoding='utf-8')
  except OSError as error:
    raise UserError(f'--table={folder}: {error.strerror}') from error


def _read_plan(file: pathlib.Path) -> summary.Plan:
  try:
    plan = parse_json(file.read_text(encoding='utf-8'))
    summary.describe(plan)
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise UserError(
      f'{file} is not a plan; remove it, or give another --json'
    ) from error
  return plan


if __name__ == '__main__':
  entry_point.run(main)
