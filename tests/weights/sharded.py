"""Imports a Gemma onto eight devices; run by test_placement.py in a process."""

import sys

import jax
import numpy as np
from flax import nnx

from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.sharding import mesh as mesh_lib
from unifluid_jax.weights import assembly, placement
from unifluid_jax.weights.pretrained import open_pretrained
from unifluid_jax.weights.shapes import shapes


def main() -> None:
  """Compares each shard with the whole array, and the bytes that were read."""
  source = open_pretrained(sys.argv[1])
  config = source.configs['gemma']
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1, fsdp=4, tensor=2))
  model = nnx.eval_shape(lambda: Gemma(config, rngs=nnx.Rngs(0)))
  axes = parameters.logical_axes(model)
  targets = {
    f'gemma/{name}': jax.ShapeDtypeStruct(
      shape,
      np.float32,
      sharding=mesh_lib.parameter_sharding(mesh, axes[name], shape),
    )
    for name, shape in shapes(config).items()
  }
  sizes = []
  read = assembly.read

  def counted(*arguments):
    result = read(*arguments)
    sizes.append(result.size)
    return result

  placement.read = counted
  placed = placement.place(source.arrays, targets)
  split = 0
  for name, array in placed.items():
    assert array.sharding == targets[name].sharding
    whole = read(source.arrays[name])
    for shard in array.addressable_shards:
      np.testing.assert_array_equal(shard.data, whole[shard.index], name)
      split += shard.data.shape != whole.shape
  assert split
  total = sum(array.size for array in placed.values())
  assert sum(sizes) == total, (sum(sizes), total)
  sys.stdout.write(f'{len(placed)} arrays on {jax.device_count()} devices\n')


if __name__ == '__main__':
  main()
