"""NaN and infinity in arrays that lie on several devices."""

import os
import subprocess
import sys

_PROGRAM = """
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from unifluid_jax.weights.finite_arrays import not_finite

mesh = Mesh(np.array(jax.devices()), ('d',))
for spec in (PartitionSpec('d'), PartitionSpec(None, 'd'), PartitionSpec()):
  for bad in (np.nan, np.inf, -np.inf):
    for row in (0, 5, 7):
      tree = {'good': np.full((8, 4), 3e38, np.float32), 'number': 3}
      tree['bad'] = tree['good'].copy()
      tree['bad'][row, 1] = bad
      for name in ('good', 'bad'):
        tree[name] = jax.device_put(tree[name], NamedSharding(mesh, spec))
      assert not_finite(tree) == ['bad'], (spec, bad, row)
assert len(jax.devices()) == 4
"""


def test_every_shard_counts():
  """Devices that combine their maxima lose NaN."""
  flags = '--xla_force_host_platform_device_count=4'
  subprocess.run(
    [sys.executable, '-c', _PROGRAM],
    check=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
  )
