"""Bytes that are changed anywhere in a header give a UserError or a model.

Whatever is flipped, cut off or put in, no other exception may come out of
opening a checkpoint and reading all of it.
"""

import random
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch

from tests.weights import hub, official
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.export import Weights, export_own
from unifluid_jax.weights.pretrained import open_pretrained
from unifluid_jax.weights.provenance import verify

TIMES = 60
# What is put in place of a byte; the rest are any bytes.
TELLING = b'\x00\xff"{}[],:-0e9'


def damage(content: bytes, header: int, rng: random.Random) -> bytes:
  """Changes a few of the first `header` bytes."""
  changed = bytearray(content)
  for _ in range(rng.choice((1, 1, 1, 3))):
    at = rng.randrange(min(header, len(changed)))
    match rng.randrange(4):
      case 0:
        changed[at] ^= 1 << rng.randrange(8)
      case 1:
        changed[at] = rng.choice(TELLING)
      case 2:
        del changed[at : at + rng.choice((1, 2, 8, len(changed)))]
      case 3:
        changed[at:at] = bytes([rng.choice(TELLING)])
    if not changed:
      break
  return bytes(changed)


def use(path) -> bool:
  """Opens a checkpoint and reads it; whether that went well."""
  try:
    source = open_pretrained(str(path))
    verify(source)
    for array in source.arrays.values():
      read(array)
  except UserError as error:
    assert str(error)
    return False
  return True


def fuzz(path, file, header=None):
  """Damages one file of a checkpoint many times."""
  content = file.read_bytes()
  assert use(path)
  rng = random.Random(file.name)
  failed = 0
  for _ in range(TIMES):
    file.write_bytes(damage(content, header or len(content), rng))
    failed += not use(path)
  file.write_bytes(content)
  assert failed > TIMES / 10
  assert use(path)


@pytest.fixture
def gemma(tmp_path):
  return hub.save(hub.gemma('gemma 2 GQA'), tmp_path / 'gemma')


def test_safetensors(gemma):
  file = gemma / 'model.safetensors'
  length = int.from_bytes(file.read_bytes()[:8], 'little')
  fuzz(gemma, file, 8 + length)


@pytest.mark.parametrize(
  'make', [lambda: hub.gemma('gemma 3 GQA'), lambda: hub.siglip('one layer')]
)
def test_config(make, tmp_path):
  fuzz(hub.save(make(), tmp_path), tmp_path / 'config.json')


def test_config_of_an_autoencoder(tmp_path):
  model = hub.vae('sd', latents_mean=[0.1] * 4, latents_std=[2.0] * 4)
  fuzz(hub.save(model, tmp_path), tmp_path / 'config.json')


def test_index(tmp_path):
  hub.save(hub.gemma('gemma 3 MQA'), tmp_path, max_shard_size='9KB')
  fuzz(tmp_path, tmp_path / 'model.safetensors.index.json')


def test_our_own_config(gemma, tmp_path):
  source = open_pretrained(str(gemma))
  weights = Weights(source.arrays, source.configs)
  export_own(weights, tmp_path / 'own', lambda name, dtype: dtype)
  fuzz(tmp_path / 'own', tmp_path / 'own' / 'config.json')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
  model = hub.siglip('one layer')
  source = open_pretrained(str(hub.save(model, tmp_path / 'hf')))
  hf = {
    n: v.detach().numpy()
    for n, v in hub.siglip('one layer').state_dict().items()
  }
  file = tmp_path / 'siglip.npz'
  save(file, **official.siglip(hf, source.configs['encoder'], '', stacked=True))
  fuzz(file, file)


@pytest.mark.parametrize('is_zip', [True, False])
def test_torch(is_zip, tmp_path):
  """Also in the format before PyTorch 1.6, which is one pickle."""
  weights = {n: v.numpy() for n, v in hub.vae('sd').state_dict().items()}
  tensors = {
    name: torch.tensor(value)
    for name, value in official.ldm(weights, 3).items()
  }
  file = tmp_path / 'vae.ckpt'
  torch.save({'model': tensors}, file, _use_new_zipfile_serialization=is_zip)
  fuzz(file, file, 6000)


def test_orbax(gemma, tmp_path):
  hf = hub.gemma('gemma 2 GQA').state_dict()
  weights = {name: value.numpy() for name, value in hf.items()}
  config = open_pretrained(str(gemma)).configs['gemma']
  tree = official.gemma_values(weights, config, turned=False, mha=False)
  folder = tmp_path / 'official'
  ocp.PyTreeCheckpointer().save(folder, official.flat(tree))
  files = [f for f in folder.rglob('*') if f.is_file()]
  rng = random.Random(0)
  for file in files:
    content = file.read_bytes()
    for _ in range(4):
      file.write_bytes(damage(content, len(content), rng))
      use(folder)
    file.unlink()
    use(folder)
    file.write_bytes(content)
  shutil.rmtree(folder / 'd', ignore_errors=True)
  assert not use(folder)
