"""The kernel on eight devices; run by test_fused_attention.py in a process."""

import functools
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding

from tests.models.test_fused_attention import arrays, interpreted, results
from unifluid_jax.models.attention import attend
from unifluid_jax.sharding.gradient_accumulation import sum_over_rows
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh, on_mesh
from unifluid_jax.sharding.process_rows import ROWS


def main() -> None:
  """Compares gradients, also where the copies of the model are apart."""
  inputs, gradient = arrays(8, 128, 4, 2, 128)
  wanted = results(attend, inputs, gradient, 50.0)
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  inputs, gradient = jax.device_put(
    (inputs, gradient), NamedSharding(mesh, ROWS)
  )

  def sums(rows):
    inputs, gradient = rows
    return [x.sum(0) for x in results(interpreted, inputs, gradient, 50.0)]

  run = functools.partial(results, interpreted, softcap=50.0)
  whole = jax.jit(on_mesh(mesh, run))(inputs, gradient)
  apart = jax.jit(on_mesh(mesh, sum_over_rows(sums, 2)))((inputs, gradient))
  for found, total, one in zip(whole, apart, wanted, strict=True):
    np.testing.assert_allclose(found, one, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(total, one.sum(0), rtol=1e-5, atol=1e-4)
  sys.stdout.write(f'{len(whole)} arrays on {mesh.size} devices\n')


if __name__ == '__main__':
  main()
