"""Headers and indexes of safetensors that are damaged or do not agree."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights import hub
from tests.weights.test_errors import message
from tests.weights.test_layouts import assert_equal, values
from unifluid_jax.weights.pretrained import open_pretrained
from unifluid_jax.weights.provenance import describe_files

NORM = 'model.layers.1.input_layernorm.weight'


def change_header(folder, change):
  """Rewrites the header of the file."""
  file = folder / 'model.safetensors'
  content = file.read_bytes()
  end = 8 + int.from_bytes(content[:8], 'little')
  text = change(content[8:end].decode()).encode()
  file.write_bytes(len(text).to_bytes(8, 'little') + text + content[end:])


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    (lambda text: text.replace('[0,', '[-4880,', 1), 'the entry of'),
    (lambda text: text.replace('[0,', '["a",', 1), 'the entry of'),
    (lambda text: text.replace('[61,20]', '[-61,-20]'), 'the entry of'),
    (lambda text: text.replace('[61,20]', '[true,1220]'), 'the entry of'),
    (
      lambda text: text.rstrip()[:-1] + f',"{NORM}":0}}',
      f'key {NORM!r} 2 times',
    ),
    (lambda text: text.replace('[4880,4960]', '[4800,4880]'), 'starts at byte'),
    (lambda text: text.replace('[4880,4960]', '[4960,5040]'), 'starts at byte'),
    (lambda text: '[' * 100_000, 'nested too deeply'),
    (lambda text: text[:99], 'its header is not JSON'),
    (lambda text: '[]', 'its header is not a JSON object'),
    (lambda text: '{}', 'bytes at its end belong to no tensor'),
  ],
)
def test_a_damaged_header(folder, change, told):
  change_header(folder, change)
  found = message(folder)
  assert told in found and f'{folder}/model.safetensors' in found


@pytest.mark.parametrize('length', [0, 7, 10**6, 2**62])
def test_another_length_of_the_header(folder, length):
  file = folder / 'model.safetensors'
  content = file.read_bytes()
  file.write_bytes(length.to_bytes(8, 'little') + content[8:])
  assert f'{file} is not a complete safetensors file' in message(folder)


def test_metadata_of_any_kind_is_not_looked_at(folder):
  before = open_pretrained(str(folder)).arrays.keys()
  change_header(folder, lambda text: text.replace('{"format":"pt"}', 'null'))
  assert open_pretrained(str(folder)).arrays.keys() == before


@pytest.fixture
def shards(tmp_path):
  """A Gemma in many files, with their index."""
  return hub.save(hub.gemma('gemma 3 GQA'), tmp_path, max_shard_size='20KB')


def change_index(shards, content):
  file = shards / 'model.safetensors.index.json'
  file.write_text(json.dumps(content))
  return file


@pytest.mark.parametrize(
  'content',
  [
    [],
    None,
    {},
    {'weight_map': {}},
    {'weight_map': ['a']},
    {'weight_map': {'a': 1}},
    {'weight_map': {'a': ''}},
    {'weight_map': {'a': '../model.safetensors'}},
    {'weight_map': {'a': 'b/../../model.safetensors'}},
    {'weight_map': {'a': '/model.safetensors'}},
  ],
)
def test_a_damaged_index(shards, content):
  file = change_index(shards, content)
  told = message(shards)
  assert told.startswith(str(file)) and told.endswith('download it again')


def test_shards_in_folders(shards, tmp_path):
  """As transformers reads them, links to where they lie included."""
  before = values(open_pretrained(str(shards)))
  index = json.loads((shards / 'model.safetensors.index.json').read_text())
  for number, name in enumerate(sorted({*index['weight_map'].values()})):
    folder = shards / 'parts' / str(number % 2)
    folder.mkdir(parents=True, exist_ok=True)
    blob = (shards / name).rename(tmp_path / f'blob{number}')
    (folder / name).symlink_to(blob)
    for tensor, shard in index['weight_map'].items():
      if shard == name:
        index['weight_map'][tensor] = f'parts/{number % 2}/{name}'
  change_index(shards, index)
  source = open_pretrained(str(shards))
  assert_equal(values(source), before)
  described = describe_files(str(shards), source.reader.files)['files']
  assert described.keys() == {*index['weight_map'].values()}
  lost = max(source.reader.files)
  lost.unlink()
  assert message(shards).startswith(f'{lost} is missing')


def test_an_index_of_another_checkpoint(shards):
  index = json.loads((shards / 'model.safetensors.index.json').read_text())
  places = index['weight_map']
  first, second = sorted({*places.values()})[:2]
  change_index(shards, {'weight_map': places | {'odd': first}})
  assert f'{shards / first} lacks odd, which the index' in message(shards)
  change_index(shards, index)
  name = next(name for name, shard in places.items() if shard == first)
  content = load_file(shards / second)
  save_file(content | {name: np.ones(2, np.float32)}, shards / second)
  told = f'{shards / second} holds {name}, which the index lists in {first}'
  assert told in message(shards)
