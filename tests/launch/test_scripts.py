"""launch/*.sh beside an environment that only tells what is called."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _calls(folder: pathlib.Path, script: str, *arguments: str) -> list[str]:
  """The extras that a script asks for, and then its calls of Python."""
  launch, said = folder / 'launch', folder / 'said'
  launch.mkdir()
  (launch / script).write_bytes((ROOT / 'launch' / script).read_bytes())
  python = folder / 'python'
  python.write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
  python.chmod(0o755)
  (launch / 'environment.sh').write_text(
    f'PATH={folder}:$PATH\necho "$1" >{said}\n'
  )
  subprocess.run(
    ['bash', launch / script, *arguments],
    env={'PATH': os.environ['PATH']},
    check=True,
  )
  return said.read_text().splitlines()


@pytest.mark.parametrize('names', [(), ('2b_v5e-256', '9b_v6e-256')])
def test_plans_are_made_in_the_environment_for_them(tmp_path, names):
  extra, *calls = _calls(tmp_path, 'plans.sh', *names)
  assert extra == 'plan'
  assert '--table=experiments/plans' in calls[-1]
  files = [re.findall(r'--json=\S*/(\S+)\.json', call) for call in calls[:-1]]
  made = [name for (name,) in files]
  if names:
    assert made == [*names]
  else:
    kept = (ROOT / 'experiments' / 'plans').glob('*.json')
    assert sorted(made) == sorted(file.stem for file in kept)


@pytest.mark.parametrize(
  ('arguments', 'wanted'),
  [
    (
      (),
      '--config={0}/experiments/quickstart.py --workdir={0}/runs/quickstart',
    ),
    (
      ('experiments/night.py:tiny',),
      '--config=experiments/night.py:tiny --workdir={0}/runs/night',
    ),
    (
      ('a/own_images.py:path=photos/mine.jsonl,steps=9',),
      '--config=a/own_images.py:path=photos/mine.jsonl,steps=9 '
      '--workdir={0}/runs/own_images',
    ),
    (
      ('a.py', 'there', '--config.training.steps=9', '--config.seed=1'),
      '--config=a.py --workdir=there --config.training.steps=9 --config.seed=1',
    ),
  ],
)
def test_the_quickstart_needs_no_argument_and_takes_flags(
  tmp_path, arguments, wanted
):
  extra, call = _calls(tmp_path, 'quickstart.sh', *arguments)
  assert not extra
  assert call == f'-m unifluid_jax.quickstart {wanted.format(tmp_path)}'


@pytest.mark.parametrize('extras', ['', 'demo,convert'])
def test_installing_makes_the_environment_and_runs_nothing(tmp_path, extras):
  assert _calls(tmp_path, 'install.sh', *filter(None, [extras])) == [extras]


def test_what_is_installed_can_be_activated(tmp_path):
  """By the command that is printed, wherever the checkout is."""
  root = tmp_path / "it's a checkout"
  (root / 'launch').mkdir(parents=True)
  for name in ('install.sh', 'environment.sh'):
    content = (ROOT / 'launch' / name).read_bytes()
    (root / 'launch' / name).write_bytes(content)
  (root / 'setup.py').write_text('')
  tools = tmp_path / 'tools'
  tools.mkdir()
  # A Python that makes an environment without packages, and no more.
  venv = '"$3/bin"; echo made >"$3/bin/activate"; cp "$0" "$3/bin/python"'
  (tools / 'python3.11').write_text(
    f'#!/bin/sh\n[ "$2" = venv ] && mkdir -p {venv}\nexit 0\n'
  )
  (tools / 'python3.11').chmod(0o755)
  environment = {'PATH': f'{tools}:{os.environ["PATH"]}'}
  command = ['bash', root / 'launch' / 'install.sh', 'demo']
  for _ in range(2):
    done = subprocess.run(
      command, env=environment, check=True, capture_output=True, text=True
    )
  assert not done.stderr  # The second time, all is there.
  assert (root / '.venv' / 'installed').read_text().endswith(': demo\n')
  activate = done.stdout.splitlines()[-1].replace('source', 'cat')
  shown = subprocess.run(['bash', '-c', activate], capture_output=True)
  assert shown.stdout == b'made\n'


@pytest.mark.parametrize('arguments', [('--help',), ('demo', 'convert')])
def test_installing_tells_how_it_is_called(tmp_path, arguments):
  done = subprocess.run(
    ['bash', ROOT / 'launch' / 'install.sh', *arguments],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'install.sh [EXTRAS]' in done.stderr
