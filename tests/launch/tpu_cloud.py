"""A checkout with a fake gcloud, for the tests of launch/tpu_vm.sh."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.launch import fake_gcloud

LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
NAME = 'pod'

# Counts to --steps, a checkpoint after each step; heeds SIGTERM as training
# does. The workers' files in the "bucket" go by their names; each start leaves
# a file in the job's own folder, too.
JOB = """
import pathlib, signal, socket, sys, time
bucket, steps, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), 0.02
saved = bucket / pathlib.Path.home().name
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))
if (bucket / 'broken').exists() and saved.name == 'pod-w-1':
  sys.exit('no such key')
start = int(saved.read_text()) if saved.exists() else 0
with open(bucket / 'starts', 'a') as file:
  file.write(f'{saved.name} {start} {sys.argv[3]}\\n')
made = pathlib.Path('runs', 'x')
made.mkdir(parents=True, exist_ok=True)
(made / str(start)).touch()
for step in range(start + 1, steps + 1):
  time.sleep(seconds)
  while step > 3 and (bucket / 'hold').exists() and not received:
    time.sleep(seconds)
    if start == 0 and (bucket / 'lost').exists():
      sys.exit('another process is lost')
  saved.write_text(str(step))
  print(f'unifluid {step}/{steps}  loss 0.5', flush=True)
  if received:
    break
"""


class Cloud:
  """A checkout, a fake gcloud, and what they leave behind."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.gcloud = folder / 'gcloud'
    self.bucket = folder / 'bucket'
    self.checkout = folder / 'checkout'
    for each in (self.gcloud, self.bucket, folder / 'bin'):
      each.mkdir()
    python = f'{sys.executable} -I -S'  # Starts in no time.
    self._executable('gcloud', f'exec {python} {fake_gcloud.__file__} "$@"')
    self._executable('hostname', 'echo "$HOSTNAME"')
    launch = self.checkout / 'launch'
    launch.mkdir(parents=True)
    for script in ('tpu_vm.sh', 'tpu_resource.sh', 'tpu_worker.sh'):
      (launch / script).write_bytes((LAUNCH / script).read_bytes())
    (launch / 'environment.sh').write_text('echo "$1" >"$HOME/extras"\n')
    (self.checkout / 'job.py').write_text(JOB)
    self._git('init', '--quiet')
    self.commit('A job')
    (self.checkout / 'junk.txt').write_text('not committed')

  def _executable(self, name: str, line: str) -> None:
    file = self.folder / 'bin' / name
    file.write_text(f'#!/usr/bin/env bash\n{line}\n')
    file.chmod(0o755)

  def _git(self, *arguments: str) -> None:
    user = ['-c', 'user.name=A', '-c', 'user.email=a@b.c']
    subprocess.run(['git', *user, *arguments], cwd=self.checkout, check=True)

  def commit(self, message: str) -> None:
    self._git('add', '.')
    self._git('commit', '--quiet', f'--message={message}')

  def start(self, *arguments: str) -> subprocess.Popen:
    """Starts launch/tpu_vm.sh."""
    environment = {
      'PATH': f'{self.folder / "bin"}:{os.environ["PATH"]}',
      'FAKE_GCLOUD': str(self.gcloud),
      'TPU_NAME': NAME,
      'TPU_ZONE': 'us-east5-b',
      'TPU_TYPE': 'v6e-8',
      'TPU_POLL_SECONDS': '0.05',
    }
    return subprocess.Popen(
      ['bash', self.checkout / 'launch' / 'tpu_vm.sh', *arguments],
      env=os.environ | environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      text=True,
    )

  def call(self, *arguments: str, stdin: str = '') -> tuple[int, str]:
    """Runs it to its end: exit code and output."""
    process = self.start(*arguments)
    output, _ = process.communicate(stdin, timeout=120)
    return process.returncode, output

  def succeed(self, *arguments: str, stdin: str = '') -> str:
    code, output = self.call(*arguments, stdin=stdin)
    assert code == 0, output
    return output

  def fail(self, *arguments: str, stdin: str = '') -> str:
    """Runs what must fail; gives all output, which ends in the error."""
    code, output = self.call(*arguments, stdin=stdin)
    assert code == 1, output
    assert output.splitlines()[-1].startswith('error: '), output
    return output

  def command(self, steps: int = 5, note: str = 'a b') -> list[str]:
    """The job, for the end of `run`."""
    job = [sys.executable, '-I', '-S', 'job.py']
    return ['--', *job, str(self.bucket), str(steps), note]

  def plan_faults(self, *kinds: str) -> None:
    (self.gcloud / 'faults.json').write_text(json.dumps(kinds))

  def faults(self) -> list[str]:
    """Those that have not happened yet."""
    return json.loads((self.gcloud / 'faults.json').read_text() or '[""]')

  def calls(self, verb: str = '') -> list[list[str]]:
    """What gcloud was called with, of one verb."""
    file = self.gcloud / 'calls.jsonl'
    lines = file.read_text().splitlines() if file.exists() else []
    found = [json.loads(line)[2:] for line in lines]
    return [call[2:] for call in found if verb in ('', ' '.join(call[:2]))]

  def edit(self, **changes) -> None:
    """Changes the queued resource behind everybody's back."""
    found = json.loads((self.gcloud / f'{NAME}.json').read_text()) | changes
    (self.gcloud / f'{NAME}.json').write_text(json.dumps(found))

  def homes(self) -> list[pathlib.Path]:
    return sorted((self.gcloud / NAME).glob('*-w-*'))

  def starts(self) -> list[str]:
    """'WORKER FIRST_STEP NOTE' of each start of the job on a worker."""
    file = self.bucket / 'starts'
    return sorted(file.read_text().splitlines()) if file.exists() else []

  def wait(self, condition) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 120
    while not condition():
      assert time.monotonic() < end
      time.sleep(0.02)

  def wait_for_looks(self, number: int) -> None:
    """Waits until so many more looks at the queued resource have begun."""
    verb = 'queued-resources describe'
    wanted = len(self.calls(verb)) + number
    self.wait(lambda: len(self.calls(verb)) >= wanted)

  def run_and_hold(self, *flags: str) -> subprocess.Popen:
    """A `run` whose job stays at step 3 until `release`."""
    (self.bucket / 'hold').touch()
    process = self.start('run', *flags, *self.command())
    self.wait(lambda: self.steps() == ['3'] * 2)
    return process

  def run_and_leave(self) -> None:
    """The same, left alone by Ctrl-C."""
    process = self.run_and_hold()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130

  @contextlib.contextmanager
  def unwatched(self, process: subprocess.Popen) -> Iterator[None]:
    """What happens meanwhile, a `run` that follows its job sees all at once."""
    self.wait(lambda: 'status' in self.calls('queued-resources ssh')[-1][3])
    os.killpg(process.pid, signal.SIGSTOP)
    try:
      yield
    finally:
      os.killpg(process.pid, signal.SIGCONT)

  def lose(self, *homes: pathlib.Path) -> None:
    """The job of these workers fails for want of another's."""
    (self.bucket / 'lost').touch()
    results = [home / 'unifluid_run' / 'result' for home in homes]
    self.wait(lambda: all(result.exists() for result in results))

  def steps(self) -> list[str]:
    """Each worker's checkpoint."""
    return [p.read_text() for p in sorted(self.bucket.glob('*-w-*'))]

  def release(self) -> None:
    (self.bucket / 'hold').unlink()
