"""Memory and time of importing a Gemma-2 2B, beside a plain read of the file.

  python -m tests.benchmarks.import_speed

It makes a safetensors file of the published shapes with random bfloat16 values
(5.2 GB), imports it, reads it, and deletes it. Each is done three times, by
turns, in processes of their own; the file is in the page cache for both, and
the best time of each counts. The last line is JSON.
"""

import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import safetensors.numpy

from unifluid_jax.models.sizes import GEMMA_SIZES
from unifluid_jax.weights.export import Weights, export
from unifluid_jax.weights.readers.dtypes import BFLOAT16
from unifluid_jax.weights.shapes import shapes

SIZE = 'gemma2_2b'
GIB = 2**30
ROUNDS = 3


class Noise:
  """A lazy array of random bytes that are finite bfloat16 numbers."""

  dtype = BFLOAT16

  def __init__(self, shape: tuple[int, ...]):
    self.shape = shape

  def read_into(self, out: np.ndarray, where: tuple[slice, ...]) -> None:
    """Writes noise in [1, 2)."""
    rng = np.random.default_rng(math.prod(out.shape))
    bits = rng.integers(0, 1 << 7, out.shape, np.uint16) | 0x3F80
    out[...] = bits.view(BFLOAT16)


def make(folder: pathlib.Path) -> None:
  """Writes the file, as transformers would."""
  config = GEMMA_SIZES[SIZE]
  arrays = {
    f'gemma/{name}': Noise(shape) for name, shape in shapes(config).items()
  }
  weights = Weights(arrays, {'gemma': config})
  export(weights, 'gemma', folder, lambda name, dtype: dtype)


def import_file(folder: pathlib.Path) -> None:
  """Our import, onto the devices."""
  import jax

  from unifluid_jax.weights.placement import place
  from unifluid_jax.weights.pretrained import open_pretrained

  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  began = time.perf_counter()
  arrays = open_pretrained(str(folder), ('gemma',)).arrays
  targets = {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=device)
    for name, array in arrays.items()
  }
  placed = jax.block_until_ready(place(arrays, targets))
  _report(began, sum(array.nbytes for array in placed.values()))


def read_file(folder: pathlib.Path) -> None:
  """A plain read of every tensor."""
  began = time.perf_counter()
  tensors = {}
  for file in sorted(folder.glob('*.safetensors')):
    tensors |= safetensors.numpy.load_file(file)
  _report(began, sum(tensor.nbytes for tensor in tensors.values()))


def _report(began: float, size: int) -> None:
  seconds = time.perf_counter() - began
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  result = {'seconds': seconds, 'peak_rss': peak, 'bytes': size}
  sys.stdout.write(json.dumps(result) + '\n')


def _run(task: str, folder: pathlib.Path) -> dict[str, float]:
  command = [sys.executable, '-m', 'tests.benchmarks.import_speed', task]
  done = subprocess.run(
    [*command, str(folder)], capture_output=True, text=True, check=True
  )
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  """Runs the benchmark, or one task of it in this process."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('task', nargs='?', choices=['import', 'read'])
  parser.add_argument('folder', nargs='?')
  arguments = parser.parse_args()
  if arguments.task:
    run = {'import': import_file, 'read': read_file}[arguments.task]
    run(pathlib.Path(arguments.folder))
    return
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / SIZE
    make(folder)
    size = sum(f.stat().st_size for f in folder.glob('*.safetensors'))
    rounds = [
      (_run('read', folder), _run('import', folder)) for _ in range(ROUNDS)
    ]
  read_seconds = min(read['seconds'] for read, _ in rounds)
  import_seconds = min(ours['seconds'] for _, ours in rounds)
  peak = max(ours['peak_rss'] for _, ours in rounds)
  result = {
    'file_gib': size / GIB,
    'peak_rss_gib': peak / GIB,
    'above_file_gib': (peak - size) / GIB,
    'import_s': import_seconds,
    'read_s': read_seconds,
    'ratio': import_seconds / read_seconds,
  }
  rounded = {name: round(value, 2) for name, value in result.items()}
  sys.stdout.write(json.dumps(rounded) + '\n')


if __name__ == '__main__':
  main()
