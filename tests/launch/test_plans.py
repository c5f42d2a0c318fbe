"""launch/plans.sh, in a checkout without plans."""

import os
import pathlib
import subprocess

SCRIPT = pathlib.Path(__file__).parents[2] / 'launch' / 'plans.sh'


def test_plans_are_made_in_the_environment_for_them(tmp_path):
  launch = tmp_path / 'launch'
  launch.mkdir()
  (launch / 'plans.sh').write_bytes(SCRIPT.read_bytes())
  said = tmp_path / 'said'
  (launch / 'environment.sh').write_text(
    f'python() {{ echo "$@" >>{said}; }}\necho "$1" >{said}\n'
  )
  subprocess.run(
    ['bash', launch / 'plans.sh'],
    env={'PATH': os.environ['PATH']},
    check=True,
  )
  extra, *calls = said.read_text().splitlines()
  assert extra == 'plan'
  assert '--table=experiments/plans' in calls[-1]
