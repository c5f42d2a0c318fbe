"""Time of saving and restoring 2 GiB of parameters.

  python -m tests.benchmarks.checkpoint_speed

To compare two versions, run it by turns in a checkout of each, with the same
TMPDIR. The last line is JSON: medians of the wall and the processor time.
"""

import argparse
import json
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from tests.abstract import abstract
from unifluid_jax.training.checkpoint import Checkpoints

ARRAYS, SHAPE = 16, (4096, 8192)


def measure(function: Callable[[], Any]) -> tuple[float, float]:
  """Seconds of wall time, and seconds of all processors."""
  before = resource.getrusage(resource.RUSAGE_SELF)
  began = time.perf_counter()
  jax.block_until_ready(function())
  wall = time.perf_counter() - began
  after = resource.getrusage(resource.RUSAGE_SELF)
  user = after.ru_utime - before.ru_utime
  return wall, user + after.ru_stime - before.ru_stime


def main() -> None:
  """Saves and restores, several times."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=3)
  rounds = parser.parse_args().rounds
  state = {
    f'array_{i}': jax.random.normal(jax.random.key(i), SHAPE)
    for i in range(ARRAYS)
  }
  target = abstract(state)
  times: dict[str, list[tuple[float, float]]] = {'save': [], 'restore': []}
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / 'checkpoints'
    with Checkpoints(folder) as checkpoints:

      def save(step: int) -> None:
        checkpoints.save(step, state, {}, -step)
        checkpoints.wait()

      save(0)  # Compiles.
      for step in range(1, rounds + 1):
        times['save'].append(measure(lambda step=step: save(step)))
        times['restore'].append(
          measure(lambda: Checkpoints(folder).restore(target, {}))
        )
  result = {
    f'{name}_{kind}_s': round(statistics.median(t[i] for t in pairs), 2)
    for name, pairs in times.items()
    for i, kind in enumerate(('wall', 'cpu'))
  }
  sys.stdout.write(json.dumps(result) + '\n')


if __name__ == '__main__':
  main()
