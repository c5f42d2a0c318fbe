"""Weights that are not finite are refused, with their name and their number."""

import re

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.weights import hub, official
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import finite_values
from unifluid_jax.weights.assembly import Constant, read
from unifluid_jax.weights.export import Weights, export, export_own
from unifluid_jax.weights.placement import place
from unifluid_jax.weights.pretrained import open_pretrained

HF = 'model.layers.1.mlp.down_proj.weight'
FLAX = 'transformer/layer_1/mlp/linear'
OURS = 'gemma/stack/blocks/mlp/down'


def spoil(value):
  """Three values that are not finite, and some that are nearly so."""
  value = np.array(value)
  value[0, :3] = np.nan, -np.inf, np.inf
  value[1, :2] = np.finfo(np.float32).max, -np.finfo(np.float32).max
  return value


def keep(name, dtype):
  return dtype


def place_all(source, dtype=None):
  """Brings what is opened onto the device."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  targets = {
    name: jax.ShapeDtypeStruct(
      array.shape, dtype or array.dtype, sharding=device
    )
    for name, array in source.arrays.items()
  }
  return place(source.arrays, targets)


@pytest.fixture
def tensors(folder):
  content = load_file(folder / 'model.safetensors')
  return content | {HF: spoil(content[HF])}


def make_safetensors(folder, tensors):
  save_file(tensors, folder / 'model.safetensors')
  return folder, HF


def make_torch(folder, tensors):
  values = {name: torch.tensor(value) for name, value in tensors.items()}
  torch.save(values, folder / 'pytorch_model.bin')
  (folder / 'model.safetensors').unlink()
  return folder, HF


def make_ckpt(folder, tensors):
  make_torch(folder, tensors)
  (folder / 'pytorch_model.bin').rename(folder / 'model.ckpt')
  return folder / 'model.ckpt', HF


def flax_values(folder, tensors):
  config = open_pretrained(str(folder)).configs['gemma']
  return official.gemma_values(tensors, config, turned=False, mha=False), config


def make_orbax(folder, tensors):
  values, _ = flax_values(folder, tensors)
  ocp.PyTreeCheckpointer().save(folder / 'flax', official.flat(values))
  return folder / 'flax', f'{FLAX}/w'


def make_npz(folder, tensors):
  values, config = flax_values(folder, tensors)
  tree = official.stacked_llm(values, config.layers)
  np.savez(folder / 'gemma.npz', **tree)
  return folder / 'gemma.npz', 'params/llm/layers/mlp/linear'


def make_own(folder, tensors):
  source = open_pretrained(str(folder))
  export_own(Weights(source.arrays, source.configs), folder / 'own', keep)
  file = folder / 'own' / 'model.safetensors'
  content = load_file(file)
  content[OURS][1] = tensors[HF].T
  save_file(content, file)
  return folder / 'own', OURS


@pytest.mark.parametrize(
  'make',
  [make_safetensors, make_torch, make_ckpt, make_orbax, make_npz, make_own],
)
def test_every_reader(folder, tensors, tmp_path, make):
  path, theirs = make(folder, tensors)
  source = open_pretrained(str(path))
  told = f'^{re.escape(theirs)} in {re.escape(str(path))}.* holds 3 values'
  with pytest.raises(UserError, match=told) as raised:
    place_all(source)
  assert OURS in str(raised.value)
  weights = Weights(source.arrays, source.configs)
  for write in (export_own, lambda *rest: export(rest[0], 'gemma', *rest[1:])):
    with pytest.raises(UserError, match=told):
      write(weights, tmp_path / 'out', keep)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('target', ['gemma', 'siglip', 'autoencoder', None])
def test_every_writer_of_a_run(target, tmp_path):
  """Of arrays in memory, which are of no file."""
  make = {
    'gemma': lambda: hub.gemma('gemma 2 GQA'),
    'siglip': lambda: hub.siglip('one layer'),
    'autoencoder': lambda: hub.vae('sd'),
  }[target or 'gemma']
  source = open_pretrained(str(hub.save(make(), tmp_path / 'hf')))
  held = {name: Constant(read(a)) for name, a in source.arrays.items()}
  name, broken = max(held.items(), key=lambda item: item[1].value.size)
  broken.value.reshape(-1)[[0, -1]] = np.nan
  with pytest.raises(UserError, match=f'^{name} holds 2 values not finite'):
    if target:
      export(Weights(held, source.configs), target, tmp_path / 'out', keep)
    else:
      export_own(Weights(held, source.configs), tmp_path / 'out', keep)
  assert [path.name for path in tmp_path.iterdir()] == ['hf']


def test_values_too_large_for_a_dtype(folder, tensors, tmp_path):
  """Infinite only in what they are written as, or placed as."""
  tensors[HF][0, :3] = 65504, 65520, 0
  save_file(tensors, folder / 'model.safetensors')
  source = open_pretrained(str(folder))
  assert np.isfinite(place_all(source)[OURS]).all()
  for dtype, count, largest in (
    ('float16', 3, 65504),
    ('bfloat16', 2, 3.39e38),
  ):
    told = f'{HF} in .* {OURS}.* holds {count} values too large for {dtype}'
    with pytest.raises(UserError, match=told) as raised:
      place_all(source, np.dtype(dtype))
    largest_told = re.search(r'largest is ([\d.e+]+)', str(raised.value))
    assert float(largest_told[1]) == pytest.approx(largest, rel=1e-3)
    weights = Weights(source.arrays, source.configs)
    with pytest.raises(UserError, match=told):
      export_own(weights, tmp_path / 'out', lambda *_: np.dtype(dtype))  # noqa: B023
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_one_value_anywhere(dtype):
  """At any place, among the largest and the smallest numbers of the dtype."""
  dtype = np.dtype(dtype)
  size = 300_005
  values = np.full(size, ml_dtypes.finfo(dtype).max, dtype)
  values[::2] *= -1
  values[1::3] = ml_dtypes.finfo(dtype).smallest_subnormal
  assert finite_values.is_finite(values)
  assert finite_values.is_finite(values[:0])
  places = [0, size - 1, *np.random.default_rng(0).integers(0, size, 4)]
  for at in (*places, *(n for k in range(15, 19) for n in (2**k - 1, 2**k))):
    for bad in (np.nan, np.inf, -np.inf):
      kept, values[at] = values[at], bad
      assert not finite_values.is_finite(values)
      values[at] = kept
  table = values[:300_000].reshape(500, 200, 3).transpose(2, 0, 1)
  assert finite_values.is_finite(table)
  table[2, 499, 199] = -np.nan
  assert not finite_values.is_finite(table)
