"""Runs entry points as a user does: in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = 'tests/configs/tiny.py'

# Many processes compile the same; tests/conftest.py sets XLA's flags.
_ENVIRONMENT = {
  'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
}


def start(module: str, *arguments: object, **options) -> subprocess.Popen:
  """Starts `python -m unifluid_jax.MODULE`; output is text, in one stream."""
  command = [sys.executable, '-m', f'unifluid_jax.{module}']
  return subprocess.Popen(
    [*command, *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | _ENVIRONMENT,
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
