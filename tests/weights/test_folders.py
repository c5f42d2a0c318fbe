"""Folders as people have them: shards, trainers' files, caches, LFS clones."""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.test_convert import byte_vocabulary
from tests.weights.test_errors import message
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.export import Weights, export_own
from unifluid_jax.weights.pretrained import open_pretrained
from unifluid_jax.weights.tokenizers import convert_tokenizer

POINTER = (
  'version https://git-lfs.github.com/spec/v1\n'
  f'oid sha256:{"4d7a2146" * 8}\n'
  'size 12345\n'
)
# What trainers save beside the weights; none of it may be unpickled.
OF_TRAINING = (
  'training_args.bin',
  'optimizer.bin',
  'optimizer.pt',
  'scheduler.bin',
  'scheduler.pt',
  'scaler.pt',
  'rng_state.pth',
  'rng_state_0.pth',
  'random_states_0.pkl',
)


class Program:
  """A pickle that leaves a trace when it is loaded."""

  def __init__(self, ran):
    self._ran = ran

  def __reduce__(self):
    return self._ran.touch, ()


def trainers_files(folder) -> pathlib.Path:
  """Adds what a trainer saves; gives the trace of a program that was run."""
  for name in OF_TRAINING:
    torch.save({'a': Program(folder / 'ran')}, folder / name)
  return folder / 'ran'


def values(path):
  arrays = open_pretrained(str(path)).arrays
  return {name: read(array) for name, array in arrays.items()}


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, name)


def write_shards(folder, form, count=3, **more):
  """Splits model.safetensors into shards; gives their files and the index.

  Args:
    folder: Where it lies.
    form: 'safetensors' or 'bin'.
    count: Number of shards.
    **more: Tensors that the first shard holds besides.
  """
  content = load_file(folder / 'model.safetensors')
  (folder / 'model.safetensors').unlink()
  stem = 'model' if form == 'safetensors' else 'pytorch_model'
  files, places = [], {}
  for number in range(count):
    file = folder / f'{stem}-{number + 1:05}-of-{count:05}.{form}'
    part = {name: content[name] for name in sorted(content)[number::count]}
    places |= dict.fromkeys(part, file.name)
    part |= more if number == 0 else {}
    if form == 'safetensors':
      save_file(part, file)
    else:
      torch.save({n: torch.tensor(v) for n, v in part.items()}, file)
    files.append(file)
  index = folder / f'{stem}.{form}.index.json'
  index.write_text(json.dumps({'weight_map': places}))
  return files, index


@pytest.fixture(params=['safetensors', 'bin'])
def form(request):
  return request.param


def test_shards_are_one_checkpoint(folder, form):
  before = values(folder)
  files, index = write_shards(folder, form)
  ran = trainers_files(folder)
  assert_equal(values(folder), before)
  assert open_pretrained(str(folder)).reader.files == tuple(files)
  files[1].unlink()
  assert message(folder).startswith(f'{files[1]} is missing; {index.name}')
  assert not ran.exists()


def test_tensors_that_the_index_does_not_list(folder, form):
  files, index = write_shards(folder, form, odd=np.ones(2, np.float32))
  told = f'{files[0]} holds odd, which the index does not list'
  assert told in message(folder)


def test_a_tensor_in_two_shards(folder, form):
  name = 'model.norm.weight'  # It sorts last: into another shard.
  files, _ = write_shards(folder, form, **{name: np.ones(20, np.float32)})
  told = message(folder)
  assert told.startswith(f'{files[0]} holds {name}, which the index lists in')


def test_a_shard_that_the_index_does_not_list(folder, form, caplog):
  before = values(folder)
  files, index = write_shards(folder, form)
  adapter = folder / f'adapter_model.{form}'
  adapter.write_bytes(b'')
  with caplog.at_level('WARNING'):
    assert_equal(values(folder), before)
  assert f'{adapter} is not read: {index.name} does not list it' in caplog.text
  for number, count in ((4, 3), (1, 2)):
    name = re.sub(r'\d+-of-\d+', f'{number:05}-of-{count:05}', files[0].name)
    stray = shutil.copy(files[0], folder / name)
    assert message(folder).startswith(f'{stray} is not listed in {index.name}')
    stray.unlink()


@pytest.mark.parametrize('place', ['/etc/hosts', '../x.bin', 'a\0b', '', 3])
def test_an_index_that_leads_outside(folder, form, place):
  _, index = write_shards(folder, form)
  places = json.loads(index.read_text())['weight_map']
  name = min(places)
  index.write_text(json.dumps({'weight_map': places | {name: place}}))
  told = f'{index} lists {name} in {place!r}, which is not a file in its folder'
  assert message(folder).startswith(told)
  index.write_text(f'{{"weight_map": {{"{name}": "a", "{name}": "b"}}}}')
  assert f'{index} is not JSON (an object has the key' in message(folder)


def test_shards_without_an_index(folder, form):
  _, index = write_shards(folder, form)
  index.unlink()
  told = message(folder)
  assert f'{folder} holds 3 shards' in told
  assert f'no index (*.{form}.index.json)' in told


def test_a_trainers_folder(folder):
  """One PyTorch file among those that hold no weights."""
  before = values(folder)
  content = load_file(folder / 'model.safetensors')
  (folder / 'model.safetensors').unlink()
  ran = trainers_files(folder)
  assert f'{folder} holds no checkpoint' in message(folder)
  torch.save(
    {name: torch.tensor(value) for name, value in content.items()},
    folder / 'pytorch_model.bin',
  )
  assert_equal(values(folder), before)
  for name in ('training_args.bin', 'optimizer.pt', 'rng_state_0.pth'):
    told = message(folder / name)
    assert told.startswith(f'{folder / name} is what a training saves')
  assert not ran.exists()


@pytest.mark.parametrize(
  'name',
  [
    'model.safetensors',
    'model.safetensors.index.json',
    'config.json',
    'pytorch_model.bin',
    'model.ckpt',
    'gemma.npz',
    'flax/_METADATA',
  ],
)
def test_git_lfs_pointers(folder, name):
  file = folder / name
  if name != 'config.json':
    (folder / 'model.safetensors').unlink()
  file.parent.mkdir(exist_ok=True)
  file.write_text(POINTER)
  told = f'{file} is a Git LFS pointer.* `git lfs pull` in {file.parent}'
  path = file.parent if name.startswith('flax') else folder
  assert re.search(told, message(path))
  if file.suffix != '.json' and path == folder:
    assert re.search(told, message(file))


def test_a_pointer_to_a_tokenizer(tmp_path):
  for name, load in (
    ('tokenizer.model', Tokenizer.load),
    ('tokenizer.json', convert_tokenizer),
    ('tokenizer.json', Tokenizer.load),
  ):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(UserError, match='is a Git LFS pointer.*git lfs pull'):
      load(tmp_path / name)


def test_a_cache_of_hugging_face(folder, tmp_path):
  root = tmp_path / 'models--google--gemma-2-2b'
  (root / 'blobs').mkdir(parents=True)
  (root / 'snapshots').mkdir()
  assert f'{root} is a cache of Hugging Face without' in message(root)
  snapshots = [root / 'snapshots' / name for name in ('0a1b', '2c3d')]
  for snapshot in snapshots:
    shutil.copytree(folder, snapshot)
  told = f'name its snapshot: {snapshots[0]} or {snapshots[1]}'
  assert told in message(root)
  folder.rename(tmp_path.parent / f'{tmp_path.name}_hf')
  assert f'{snapshots[0]} or {snapshots[1]}' in message(tmp_path)
  assert values(snapshots[0])


def test_a_tokenizer_of_another_form(tmp_path):
  """The command that the message tells makes a file that can be read."""
  file = tmp_path / 'a b' / 'tokenizer.json'
  file.parent.mkdir()
  file.write_text(json.dumps(byte_vocabulary()))
  out = file.with_name('tokenizer.model')
  command = f"python -m unifluid_jax.convert --source='{file}' --out='{out}'"
  for path in (file, file.parent, out):
    with pytest.raises(UserError) as raised:
      Tokenizer.load(path)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).endswith(command)
  assert message(file.parent).endswith(command)
  out.write_bytes(convert_tokenizer(file))
  Tokenizer.load(out)
  with pytest.raises(UserError, match=f'is a folder; name {out}'):
    Tokenizer.load(file.parent)
  with pytest.raises(UserError, match='is a folder without a tokenizer.model'):
    Tokenizer.load(tmp_path)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
@pytest.mark.parametrize('kind', ['folder', 'loop', 'pipe'])
def test_what_is_no_file(folder, name, kind):
  """None is read: a pipe would never end."""
  file = folder / name
  file.unlink()
  if kind == 'folder':
    file.mkdir()
  elif kind == 'loop':
    file.symlink_to(file.name)
  else:
    os.mkfifo(file)
  told = message(folder)
  assert str(file) in told


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('norm_eps', float('nan')),
    ('rope_theta', float('inf')),
    ('layers', 10**9),
    ('width', 2**70),
  ],
)
def test_numbers_of_our_own_config(folder, tmp_path, key, value):
  source = open_pretrained(str(folder))
  out = tmp_path / 'own'
  export_own(
    Weights(source.arrays, source.configs), out, lambda name, dtype: dtype
  )
  content = json.loads((out / 'config.json').read_text())
  content['parts']['gemma'][key] = value
  (out / 'config.json').write_text(json.dumps(content))
  assert re.search(
    f'{out}.gemma is not a shape of a model .{key}', message(out)
  )
