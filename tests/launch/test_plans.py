"""launch/plans.sh, in a checkout without plans."""

import os
import pathlib
import re
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / 'launch' / 'plans.sh'


@pytest.mark.parametrize('names', [(), ('2b_v5e-256', '9b_v6e-256')])
def test_plans_are_made_in_the_environment_for_them(tmp_path, names):
  launch = tmp_path / 'launch'
  launch.mkdir()
  (launch / 'plans.sh').write_bytes(SCRIPT.read_bytes())
  said = tmp_path / 'said'
  (launch / 'environment.sh').write_text(
    f'python() {{ echo "$@" >>{said}; }}\necho "$1" >{said}\n'
  )
  subprocess.run(
    ['bash', launch / 'plans.sh', *names],
    env={'PATH': os.environ['PATH']},
    check=True,
  )
  extra, *calls = said.read_text().splitlines()
  assert extra == 'plan'
  assert '--table=experiments/plans' in calls[-1]
  files = [re.findall(r'--json=\S*/(\S+)\.json', call) for call in calls[:-1]]
  made = [name for (name,) in files]
  if names:
    assert made == [*names]
  else:
    kept = (SCRIPT.parents[1] / 'experiments' / 'plans').glob('*.json')
    assert sorted(made) == sorted(file.stem for file in kept)
