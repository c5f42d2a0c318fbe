"""Runs entry points as a user does: in processes of their own."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = 'tests/configs/tiny.py'

# Many processes compile the same; tests/conftest.py sets XLA's flags.
_ENVIRONMENT = {
  'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
}


def start(
  module: str, *arguments: object, devices: int = 1, **options
) -> subprocess.Popen:
  """Starts `python -m unifluid_jax.MODULE`; output is text, in one stream.

  Args:
    module: The entry point.
    *arguments: Its arguments.
    devices: Devices that its processor poses as.
    **options: Of `subprocess.Popen`.
  """
  command = [sys.executable, '-m', f'unifluid_jax.{module}']
  pose = f'--xla_force_host_platform_device_count={devices}'
  xla_flags = {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {pose}'}
  return subprocess.Popen(
    [*command, *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | _ENVIRONMENT | xla_flags,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    **options,
  )


def run(module: str, *arguments: object, **options) -> tuple[int, str]:
  """Runs it to its end: exit code and output."""
  process = start(module, *arguments, **options)
  output, _ = process.communicate()
  return process.returncode, output


def free_port() -> int:
  """A port that nobody listens on."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def start_together(
  module: str, count: int, *arguments: object, devices: int = 1
) -> list[subprocess.Popen]:
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


def end_together(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
  """Exit code and output of each."""
  outputs = [process.communicate()[0] for process in processes]
  return list(zip([p.returncode for p in processes], outputs, strict=True))


def succeed(module: str, *arguments: object) -> str:
  """Runs what must succeed; gives the output."""
  code, output = run(module, *arguments)
  assert code == 0, output
  return output


def fail(module: str, *arguments: object, **options) -> str:
  """Runs what must end with one clear message; gives the message."""
  code, output = run(module, *arguments, **options)
  assert code == 1, output
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
  """The step of the newest checkpoint."""
  names = [path.name for path in (workdir / 'checkpoints').iterdir()]
  return max(int(name) for name in names if name.isdigit())
