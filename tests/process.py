"""Runs entry points as a user does: in processes of their own.

No child outlives the tests: each is a session of its own, which is killed at
its time limit and at the end of the `with` block that it is used in. A child
that fails or hangs puts its output into the assertion.
"""

import atexit
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = 'tests/configs/tiny.py'

LIMIT = 300.0
"""Seconds that a child may take: many times what any of them does."""

# Many processes compile the same; tests/conftest.py sets XLA's flags.
ENVIRONMENT = {
  'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
}


_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
  """Should the tests themselves be killed; of a child's first process."""
  if sys.platform == 'linux':
    pr_set_pdeathsig = 1
    _LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)


class Child:
  """A process that has been started; to be used in a `with` block."""

  def __init__(
    self,
    command: list[str],
    environment: dict[str, str],
    before: Callable[[], None] | None,
  ):
    self._deadline = time.monotonic() + LIMIT

    def first():
      _die_with_parent()
      if before:
        before()

    self._process = subprocess.Popen(
      command,
      cwd=ROOT,
      # Output is buffered as on any machine, whatever is set on this one.
      env=os.environ | {'PYTHONUNBUFFERED': ''} | environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      preexec_fn=first,
    )
    # Read meanwhile: a pipe that is full would stop the child.
    self._output = bytearray()
    self._reader = threading.Thread(target=self._read)
    self._reader.start()
    atexit.register(self.kill)  # If nobody asks for its end.

  def __enter__(self) -> 'Child':
    return self

  def __exit__(self, *error: object) -> None:
    self.kill()
    self._process.stdout.close()

  def _read(self) -> None:
    for line in self._process.stdout:
      self._output += line

  @property
  def output(self) -> str:
    """The lines it has written so far, both streams in one."""
    return self._output.decode(errors='replace')

  def wait(self) -> int:
    """Waits for its end: the exit code, -N if signal N killed it."""
    self.wait_until(lambda: self._process.poll() is not None)
    self._reader.join()
    return self._process.returncode

  def wait_until(self, condition: Callable[[], object]) -> None:
    """Waits for a condition, which must come true before the time limit."""
    while not condition():
      if time.monotonic() > self._deadline:
        self.kill()
        raise AssertionError(f'still running after {LIMIT} s:\n{self.output}')
      time.sleep(0.005)

  def watch(self, condition: Callable[[], object]) -> None:
    """Waits for a condition, which must come true before the child ends."""
    self.wait_until(lambda: condition() or self._process.poll() is not None)
    if self._process.poll() is not None:
      raise AssertionError(f'ended with {self.wait()}:\n{self.output}')

  def send(self, number: int) -> None:
    """Sends a signal to the process alone."""
    self._process.send_signal(number)

  def send_all(self, number: int) -> None:
    """Sends a signal to the process and to all that it has started."""
    os.killpg(self._process.pid, number)

  def started(self) -> set[int]:
    """Ids of the processes that it has started and that still run."""
    found = set()
    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
      with contextlib.suppress(OSError):  # It has ended meanwhile.
        # After the name: state, parent, group, session.
        state, _, _, session = stat.read_text().rpartition(')')[2].split()[:4]
        if int(session) == self._process.pid and state != 'Z':
          found.add(int(stat.parent.name))
    return found - {self._process.pid}

  def kill(self) -> None:
    """Kills it and all that it has started, at once."""
    atexit.unregister(self.kill)
    with contextlib.suppress(ProcessLookupError):  # All have ended.
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    self._reader.join()


def start(
  module: str,
  *arguments: object,
  devices: int = 1,
  before: Callable[[], None] | None = None,
) -> Child:
  """Starts `python -m unifluid_jax.MODULE`.

  Args:
    module: The entry point.
    *arguments: Its flags.
    devices: Devices that its processor poses as.
    before: What the child does first.
  """
  command = [sys.executable, '-m', f'unifluid_jax.{module}']
  command += map(str, arguments)
  pose = f'--xla_force_host_platform_device_count={devices}'
  flags = f'{os.environ.get("XLA_FLAGS", "")} {pose}'
  return Child(command, ENVIRONMENT | {'XLA_FLAGS': flags}, before)


def free_port() -> int:
  """A port that nobody listens on."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def start_together(
  module: str, count: int, *arguments: object, devices: int = 1
) -> list[Child]:
  """Starts processes that train together."""
  port = free_port()
  return [
    start(
      module,
      *arguments,
      f'--coordinator=127.0.0.1:{port}',
      f'--processes={count}',
      f'--process_id={i}',
      devices=devices,
    )
    for i in range(count)
  ]


def end_together(children: list[Child]) -> list[tuple[int, str]]:
  """Waits for their ends: exit code and output of each."""
  with contextlib.ExitStack() as stack:
    for child in children:
      stack.enter_context(child)
    return [(child.wait(), child.output) for child in children]


def run(module: str, *arguments: object, **options) -> tuple[int, str]:
  """Runs it to its end: exit code and output."""
  with start(module, *arguments, **options) as child:
    return child.wait(), child.output


def succeed(module: str, *arguments: object, **options) -> str:
  """Runs what must succeed; gives the output."""
  code, output = run(module, *arguments, **options)
  assert code == 0, f'ended with {code}:\n{output}'
  return output


def fail(module: str, *arguments: object, **options) -> str:
  """Runs what must end with one clear message; gives the message."""
  code, output = run(module, *arguments, **options)
  assert code == 1, f'ended with {code}:\n{output}'
  assert 'Traceback' not in output
  (message,) = [x for x in output.splitlines() if x.startswith('error: ')]
  assert output.endswith(f'{message}\n')
  return message.removeprefix('error: ')


def flags(workdir: pathlib.Path, config: str = CONFIG) -> list[str]:
  """The flags of a training."""
  return [f'--config={config}', f'--workdir={workdir}']


def read_losses(workdir: pathlib.Path) -> list[dict[str, float]]:
  """The logged losses, step by step."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k[:4] in ('step', 'loss')}
    for line in lines
  ]


def newest_checkpoint(workdir: pathlib.Path) -> int:
  """The step of the newest checkpoint; 0 if there is none."""
  folder = workdir / 'checkpoints'
  names = [path.name for path in folder.iterdir()] if folder.exists() else []
  return max((int(name) for name in names if name.isdigit()), default=0)
