"""launch/tpu_worker.sh on its own, and the files of GKE that call it."""

import math
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
WORKER = ROOT / 'launch' / 'tpu_worker.sh'


def job(home: pathlib.Path, verb: str, program: str) -> subprocess.Popen:
  """Starts a Python program as a job, in a process group of its own."""
  python = [sys.executable, '-I', '-S', '-c', program]
  return subprocess.Popen(
    ['bash', WORKER, verb, *python],
    env=os.environ | {'HOME': str(home)},
    start_new_session=True,
  )


@pytest.mark.parametrize('verb', ['detached', 'job'])
@pytest.mark.parametrize(
  ('program', 'code', 'result'),
  [
    ('pass', 0, 'done'),
    ('raise SystemExit(3)', 3, 'failed(3)'),
    ('import os; os.kill(os.getpid(), 9)', 137, 'failed(137)'),
  ],
)
def test_result_of_a_job(tmp_path, verb, program, code, result):
  assert job(tmp_path, verb, program).wait(timeout=120) == code
  assert (tmp_path / 'unifluid_run' / 'result').read_text() == f'{result}\n'


# Neither saves nor lives on after SIGTERM.
DIES = """
import pathlib, time
pathlib.Path.home().joinpath('ready').touch()
time.sleep(200)
"""

# Saves after SIGTERM, for as long as it is let, and dies of a second one.
SAVES = """
import pathlib, signal, time
home = pathlib.Path.home()
def save(number, frame):
  signal.signal(number, signal.SIG_DFL)
  home.joinpath('saving').touch()
  while not home.joinpath('release').exists():
    time.sleep(0.02)
  home.joinpath('saved').touch()
  raise SystemExit(0)
signal.signal(signal.SIGTERM, save)
home.joinpath('ready').touch()
time.sleep(200)
"""


def wait(condition) -> None:
  """Waits until something is so."""
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


@pytest.mark.parametrize('verb', ['detached', 'job'])
@pytest.mark.parametrize('program', [SAVES, DIES])
def test_going_down_is_no_end(tmp_path, verb, program):
  """As a machine goes down, and as a container does."""
  process = job(tmp_path, verb, program)
  wait((tmp_path / 'ready').exists)
  if verb == 'detached':
    os.killpg(process.pid, signal.SIGTERM)
  else:
    process.terminate()
  (tmp_path / 'release').touch()
  assert process.wait(timeout=120) == 143
  assert (tmp_path / 'saved').exists() == (program == SAVES)
  result = tmp_path / 'unifluid_run' / 'result'
  assert result.read_text() == 'interrupted\n'


@pytest.fixture
def worker(tmp_path):
  """Calls the script in a home folder, as launch/tpu_vm.sh does."""
  environment = tmp_path / 'unifluid_jax' / 'launch' / 'environment.sh'
  environment.parent.mkdir(parents=True)
  environment.touch()
  (tmp_path / 'tpu_worker.sh').write_bytes(WORKER.read_bytes())

  def call(*arguments: str) -> str:
    return subprocess.run(
      ['bash', tmp_path / 'tpu_worker.sh', *arguments],
      env=os.environ | {'HOME': str(tmp_path)},
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    ).stdout

  yield call
  call('kill')


def test_a_machine_that_goes_down_hangs_up_as_well(tmp_path, worker):
  worker('start', 'c0ffee', sys.executable, '-I', '-S', '-c', SAVES)
  wait((tmp_path / 'ready').exists)
  group = int((tmp_path / 'unifluid_run' / 'group').read_text())
  for number in (signal.SIGTERM, signal.SIGHUP):
    os.killpg(group, number)
  (tmp_path / 'release').touch()
  wait(lambda: ' running:' not in worker('status'))
  assert ' interrupted:' in worker('status')
  assert (tmp_path / 'saved').exists()


def test_stopped_twice_saves_once(tmp_path, worker):
  worker('start', 'c0ffee', sys.executable, '-I', '-S', '-c', SAVES)
  wait((tmp_path / 'ready').exists)
  assert not worker('stop')
  wait((tmp_path / 'saving').exists)
  again = worker('stop')
  (tmp_path / 'release').touch()
  wait(lambda: ' running:' not in worker('status'))
  assert ' stopped:' in worker('status')
  assert (tmp_path / 'saved').exists()
  assert 'has been told to stop' in again


def test_a_stop_that_reaches_nobody_is_not_said_to_have(tmp_path, worker):
  """As where the job has left a child of another session behind."""
  worker('start', 'c0ffee', 'bash', '-c', 'setsid sleep 60 & echo $! >~/left')
  group = int((tmp_path / 'unifluid_run' / 'group').read_text())
  wait(lambda: not pathlib.Path(f'/proc/{group}').exists())
  for _ in range(2):
    with pytest.raises(subprocess.CalledProcessError):
      worker('stop')
  os.kill(int((tmp_path / 'left').read_text()), signal.SIGKILL)
  wait(lambda: ' running:' not in worker('status'))


def test_a_shell_list_is_stopped_as_a_whole(tmp_path, worker):
  """The shell dies of the signal at once, and what it runs saves."""
  python = shlex.join([sys.executable, '-I', '-S', '-c', SAVES])
  worker('start', 'c0ffee', 'bash', '-c', f'{python} && touch ~/next')
  wait((tmp_path / 'ready').exists)
  worker('stop')
  wait((tmp_path / 'saving').exists)
  wait((tmp_path / 'unifluid_run' / 'result').exists)
  assert ' running:' in worker('status')
  (tmp_path / 'release').touch()
  wait(lambda: ' running:' not in worker('status'))
  assert ' stopped:' in worker('status')
  assert (tmp_path / 'saved').exists()
  assert not (tmp_path / 'next').exists()


def test_python_is_installed_where_it_is_too_old(tmp_path):
  """As on Ubuntu 22.04, with Python 3.10 and no other."""
  stubs, local = tmp_path / 'stubs', tmp_path / '.local' / 'bin'
  stubs.mkdir()
  local.mkdir(parents=True)
  tools = 'bash cat cksum flock grep gzip mkdir mv tar true'
  for tool in tools.split():
    (stubs / tool).symlink_to(
      subprocess.check_output(['which', tool], text=True).strip()
    )
  said = tmp_path / 'said'
  for file in (stubs / 'python3', stubs / 'hostname', local / 'uv'):
    file.write_text(
      f'#!/bin/bash\necho {file.name} "$@" >>{said}\n[[ $1 != -c ]]'
    )
    file.chmod(0o755)
  (tmp_path / 'launch').mkdir()
  (tmp_path / 'launch' / 'environment.sh').write_text(f'echo "$1" >>{said}\n')
  archive = tmp_path / 'unifluid_jax.tar.gz'
  subprocess.run(['tar', '-czf', archive, 'launch'], cwd=tmp_path, check=True)
  checksum = subprocess.check_output(f'cksum <{archive}', shell=True, text=True)
  subprocess.run(
    [stubs / 'bash', WORKER, 'setup', 'c0ffee', *checksum.split()],
    env={'HOME': str(tmp_path), 'PATH': str(stubs)},
    check=True,
  )
  assert said.read_text().splitlines()[1:4] == [
    'python3 -m pip install --quiet --user uv>=0.8',
    'uv python install --quiet 3.11',
    'tpu',
  ]


def test_gke_job_fills_its_slices():
  """Every chip of the topology is asked for once."""
  manifest = yaml.safe_load((ROOT / 'launch' / 'gke_job.yaml').read_text())
  (replicated,) = manifest['spec']['replicatedJobs']
  slice_ = replicated['template']['spec']
  pod = slice_['template']['spec']
  (container,) = pod['containers']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  chips = math.prod(map(int, topology.split('x')))
  machines = chips // container['resources']['limits']['google.com/tpu']
  assert slice_['parallelism'] == slice_['completions'] == machines
  # The checkout's place in the image, see launch/Dockerfile.
  paths = re.findall('/unifluid_jax/(\\S+)', ' '.join(container['command']))
  assert len(paths) == 2
  assert all((ROOT / path).is_file() for path in paths)


def test_recipes_wait_for_the_files_of_all():
  """The roll call's 60 s are less than copies may differ by."""
  guide = (ROOT / 'launch' / 'README.md').read_text()
  (recipe,) = re.findall('cp --recursive --no-clobber.*?```', guide, re.DOTALL)
  for text in (recipe, (ROOT / 'launch' / 'gke_job.yaml').read_text()):
    assert '--start_timeout=1800' in text


def test_gke_job_has_the_files_of_its_config():
  """Copied to where the job looks for them."""
  manifest = yaml.safe_load((ROOT / 'launch' / 'gke_job.yaml').read_text())
  (replicated,) = manifest['spec']['replicatedJobs']
  pod = replicated['template']['spec']['template']['spec']
  (copy,), (train,) = pod['initContainers'], pod['containers']
  folder = train['workingDir']
  assert copy['command'][-2:] == ['gs://BUCKET/files/*', folder]
  files, memory = train['volumeMounts']
  assert copy['volumeMounts'] == [files]
  assert files['mountPath'] == folder
  assert memory['mountPath'] == '/dev/shm'
  assert pod['volumes'][1] == {
    'name': memory['name'],
    'emptyDir': {'medium': 'Memory'},
  }
  assert train['env'][0]['value'] == f'{folder}/tensorflow_datasets'
