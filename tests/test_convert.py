"""The command line, as a user runs it."""

import json
import resource
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests import process
from tests.weights import hub, official
from unifluid_jax.weights.pretrained import open_pretrained

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def gemma(tmp_path_factory):
  folder = tmp_path_factory.mktemp('gemma')
  return hub.save(hub.gemma('gemma 2 GQA'), folder)


def run(*arguments):
  return process.succeed('convert', *arguments)


def test_dry_run_writes_nothing(gemma, tmp_path):
  output = run(f'--source={gemma}', f'--out={tmp_path / "out"}', '--dry_run')
  assert 'gemma (Gemma of transformers, names under' in output
  assert '11 parameters, 49.84 kB' in output
  assert not list(tmp_path.iterdir())


def test_there_and_back(gemma, tmp_path):
  own, back = tmp_path / 'own', tmp_path / 'back'
  run(f'--source={gemma}', f'--out={own}')
  metadata = json.loads((own / 'config.json').read_text())
  assert metadata['format'] == 'unifluid_jax'
  (file,) = metadata['source']['files'].values()
  assert len(file['sha256']) == 64
  assert (
    metadata['checksums'].keys() == load_file(own / 'model.safetensors').keys()
  )
  run(f'--source={own}', '--to=gemma', f'--out={back}')
  before, after = (
    load_file(folder / 'model.safetensors') for folder in (gemma, back)
  )
  assert before.keys() == after.keys()
  for name, value in before.items():
    assert value.tobytes() == after[name].tobytes()
  # Before a run of hours is read, or anything else.
  told = process.fail('convert', '--source=no/such', f'--out={own}')
  assert told == f'{own} exists and is not empty; choose another place'


def test_a_reader_of_the_table_that_leaves(gemma, tmp_path):
  out = tmp_path / 'out'
  command = [sys.executable, '-um', 'unifluid_jax.convert']
  command += [f'--source={gemma}', f'--out={out}']
  with subprocess.Popen(
    command, cwd=process.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as child:
    child.stdout.close()
    told = child.stderr.read().decode()
  assert child.returncode == 128 + signal.SIGPIPE, told
  assert told == f'the weights are in {out}\n'
  assert (out / 'model.safetensors').exists()


def test_surgery_and_dtypes(gemma, tmp_path):
  run(
    f'--source={gemma}',
    f'--out={tmp_path / "out"}',
    '--vocab_size=70',
    '--new_rows=normal',
    '--dtype=norm=float32',
    '--dtype=bfloat16',
  )
  tensors = load_file(tmp_path / 'out' / 'model.safetensors')
  assert tensors['gemma/embedding'].shape == (70, 20)
  for name, value in tensors.items():
    expected = 'float32' if 'norm' in name else 'bfloat16'
    assert value.dtype == np.dtype(expected), name


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--model=gemma9_1b'], "unknown model 'gemma9_1b'; known are gemma1_2b"),
    (['--model=gemma2_2b'], 'has another gemma than the config: width is 20'),
    (['--vocab_size=62'], 'has 61 rows and the vocabulary 62; set new_rows'),
    (['--model=sd'], '--model is sd, but'),
    (['--image_size=32'], '--image_size is given, but the source holds no'),
    (['--dtype=int8'], "--dtype has 'int8'"),
    (['--dtype=mpl=bfloat16'], "'mpl=bfloat16', which matches no parameter"),
    (['--to=siglip'], 'there is no encoder to export; there are gemma'),
  ],
)
def test_mistakes(gemma, tmp_path, flags, message):
  out = tmp_path / 'out'
  told = process.fail('convert', f'--source={gemma}', f'--out={out}', *flags)
  assert message in told
  assert not list(tmp_path.iterdir())
  if flags == ['--dtype=int8']:
    assert '--out must be given' in process.fail('convert', f'--source={gemma}')


@pytest.mark.parametrize(
  ('value', 'flags', 'told'),
  [
    (np.nan, [], 'holds 1 value not finite'),
    (1e5, ['--dtype=float16', '--to=gemma'], 'holds 1 value too large for'),
  ],
)
def test_values_that_cannot_be_written(value, flags, told, tmp_path):
  source = hub.save(hub.gemma('gemma 2 GQA'), tmp_path / 'hf')
  content = load_file(source / 'model.safetensors')
  name = 'model.layers.2.mlp.up_proj.weight'
  content[name][3, 2] = value
  save_file(content, source / 'model.safetensors')
  out = tmp_path / 'out'
  found = process.fail('convert', f'--source={source}', f'--out={out}', *flags)
  assert found.startswith(f'{name} in {source}') and told in found
  assert not out.exists()


def test_layers_of_several_dtypes(tmp_path):
  """They are one parameter: widened unasked, they would not come back."""
  source = hub.save(hub.gemma('gemma 2 GQA'), tmp_path / 'hf')
  file = source / 'model.safetensors'
  content = load_file(file)
  first, name = (f'model.layers.{i}.mlp.down_proj.weight' for i in (0, 2))
  content[name] = content[name].astype(np.float16)
  save_file(content, file)
  out = tmp_path / 'out'
  told = process.fail('convert', f'--source={source}', f'--out={out}')
  assert f'{first} in float32 and {name} in float16; choose one' in told
  assert not out.exists()


@pytest.mark.parametrize('name', ['tokenizer.model', 'folder/own'])
def test_a_full_disk_leaves_nothing(gemma, tmp_path, name):
  source = gemma
  if name.endswith('.model'):
    source = tmp_path / 'tokenizer.json'
    source.write_text(json.dumps(byte_vocabulary()))

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))

  out = tmp_path / name
  told = process.fail(
    'convert', f'--source={source}', f'--out={out}', before=limit
  )
  assert f'{out} cannot be written: File too large' in told
  files = [file for file in tmp_path.rglob('*') if file.is_file()]
  assert files == [source] * (source != gemma)


def byte_vocabulary():
  """The smallest tokenizer.json of Gemma's kind."""
  pieces = ['<pad>', '<eos>', '<bos>', '<unk>', '\n', '<start_of_image>']
  words = [*pieces, *(f'<0x{i:02X}>' for i in range(256))]
  replace = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\u2581'}
  return {
    'normalizer': replace,
    'added_tokens': [{'id': i, 'content': p} for i, p in enumerate(pieces)],
    'model': {
      'type': 'BPE',
      'byte_fallback': True,
      'vocab': {word: i for i, word in enumerate(words)},
      'merges': [],
    },
  }


def test_damaged_values_leave_nothing(tmp_path):
  """What is found only while the result is written."""
  model = hub.siglip('three heads')
  source = open_pretrained(str(hub.save(model, tmp_path / 'hf')))
  weights = {name: v.numpy() for name, v in model.state_dict().items()}
  config = source.configs['encoder']
  tree = official.siglip(weights, config, '', stacked=True)
  file = tmp_path / 'siglip.npz'
  np.savez_compressed(file, **tree)
  with zipfile.ZipFile(file) as archive:
    info = max(archive.infolist(), key=lambda info: info.compress_size)
  content = bytearray(file.read_bytes())
  content[info.header_offset + info.compress_size - 9] ^= 255
  file.write_bytes(content)
  out = tmp_path / 'out' / 'siglip'
  told = process.fail('convert', f'--source={file}', f'--out={out}')
  name = info.filename.removesuffix('.npy')
  assert told.startswith(f'{name} in {file} cannot be unpacked')
  assert not out.exists() and not any(out.parent.glob('*'))
