"""What is wrong with a file is told in one message, with tensor and file."""

import dataclasses
import json
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights import hub
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import Constant
from unifluid_jax.weights.export import Weights, export, export_own
from unifluid_jax.weights.hf_config import from_json
from unifluid_jax.weights.pretrained import open_pretrained
from unifluid_jax.weights.provenance import verify
from unifluid_jax.weights.safetensors_file import check_new


def change(folder, **tensors):
  """Rewrites tensors of the file; None removes one."""
  file = folder / 'model.safetensors'
  content = load_file(file)
  for name, value in tensors.items():
    if value is None:
      del content[name]
    else:
      content[name] = value
  save_file(content, file)


def message(path, *arguments, **kwargs) -> str:
  with pytest.raises(UserError) as raised:
    open_pretrained(str(path), *arguments, **kwargs)
  return str(raised.value)


NORM = 'model.layers.1.input_layernorm.weight'


def test_a_missing_tensor(folder):
  change(folder, **{NORM: None})
  assert f'{NORM} is missing' in message(folder)


def test_another_shape(folder):
  change(folder, **{NORM: np.ones(7, np.float32)})
  told = message(folder)
  assert f'{NORM} in {folder}/model.safetensors is [7] where [20]' in told


@pytest.mark.parametrize('rows', [0, 5, 62])
def test_another_vocabulary_than_config_json(folder, rows):
  name = 'model.embed_tokens.weight'
  change(folder, **{name: np.ones((rows, 20), np.float32)})
  told = f'{name} in {folder}/model.safetensors is [{rows}, 20] where [61, 20]'
  assert told in message(folder)


@pytest.mark.parametrize('rows', [5, 62])
def test_a_run_of_another_vocabulary(folder, rows):
  """Rows may differ from what a run wants; those of the file may not."""
  name = 'model.embed_tokens.weight'
  change(folder, **{name: np.ones((rows, 20), np.float32)})
  told = f'{name} in {folder}/model.safetensors is [{rows}, 20] where [61, 20]'
  gemma = hub.gemma_config('gemma 2 GQA')
  config = dataclasses.replace(
    from_json(gemma.to_dict(), 'x').configs['gemma'], vocab_size=rows
  )
  assert told in message(folder, configs={'gemma': config})


def test_a_tensor_that_is_left_over(folder):
  change(folder, **{'model.layers.3.odd.weight': np.ones(2, np.float32)})
  told = message(folder)
  assert 'model.layers.3.odd.weight is left over' in told


@pytest.mark.parametrize('dtype', [np.int8, np.float64, np.int64])
def test_a_wrong_dtype(folder, dtype):
  change(folder, **{NORM: np.ones(20, dtype)})
  told = message(folder)
  name = np.dtype(dtype).name
  assert f'{NORM} in {folder}/model.safetensors is of dtype {name}' in told


def test_a_quantized_dtype(folder):
  file = folder / 'model.safetensors'
  content = file.read_bytes()
  length = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + length])
  header[NORM]['dtype'] = 'F8_E4M3'
  text = json.dumps(header).encode()
  file.write_bytes(
    len(text).to_bytes(8, 'little') + text + content[8 + length :]
  )
  assert f'{NORM} in {file} is of dtype F8_E4M3' in message(folder)


@pytest.mark.parametrize('share', [0.999, 0.5, 0.01, 0.0])
def test_a_truncated_file(folder, share):
  file = folder / 'model.safetensors'
  content = file.read_bytes()
  file.write_bytes(content[: int(len(content) * share)])
  told = message(folder)
  assert str(file) in told
  assert 'complete' in told and 'download it again' in told
  if share == 0.5:
    assert re.search(r'model\.\S+ ends at byte \d+ and the file at \d+', told)


@pytest.mark.parametrize('share', [0.9, 0.1, 0.0])
def test_a_truncated_npz(tmp_path, share):
  file = tmp_path / 'a.npz'
  np.savez(file, **{'params/img/pos_embedding': np.ones((1, 4, 2))})
  file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
  assert f'{file} is not a complete .npz' in message(file)


def test_a_missing_shard(tmp_path):
  hub.save(hub.gemma('gemma 3 GQA'), tmp_path, max_shard_size='20KB')
  shard = sorted(tmp_path.glob('*.safetensors'))[1]
  lost = shard.read_bytes()
  shard.unlink()
  told = message(tmp_path)
  assert told.startswith(f'{shard} is missing')
  assert 'model.' in told
  shard.write_bytes(lost[: len(lost) // 2])
  assert str(shard) in message(tmp_path)


def test_unknown_models(folder, tmp_path):
  config = folder / 'config.json'
  content = json.loads(config.read_text())
  config.write_text(json.dumps(content | {'model_type': 'llama'}))
  assert "unknown model 'llama'" in message(folder)
  config.unlink()
  assert 'unknown model' in message(folder)
  other = tmp_path / 'other.safetensors'
  save_file({'some.weight': np.ones(2)}, other)
  assert 'holds no model that is known' in message(other)
  assert 'some.weight' in message(other)
  assert 'holds no vae' in message(other, ('vae',))
  assert 'does not exist' in message(tmp_path / 'nothing')
  (tmp_path / 'empty').mkdir()
  assert 'holds no checkpoint' in message(tmp_path / 'empty')
  (tmp_path / 'a.gguf').touch()
  assert 'has an unknown format' in message(tmp_path / 'a.gguf')


def test_another_config(folder):
  found = open_pretrained(str(folder)).configs['gemma']
  other = dataclasses.replace(found, window=7, final_softcap=None)
  told = message(folder, configs={'gemma': other})
  assert 'window is 11 in the file and 7 in the config' in told
  assert 'final_softcap is 4.0 in the file and None in the config' in told


def test_a_head_of_its_own(folder):
  table = load_file(folder / 'model.safetensors')['model.embed_tokens.weight']
  change(folder, **{'lm_head.weight': table})
  verify(open_pretrained(str(folder)))
  table[-1, -1] = np.nan
  change(
    folder, **{'model.embed_tokens.weight': table, 'lm_head.weight': table}
  )
  verify(open_pretrained(str(folder)))
  told = 'lm_head.weight in .* is not the embedding table'
  for other in (table[:, 1:], np.ones((), np.float32)):
    change(folder, **{'lm_head.weight': other})
    assert re.search(told, message(folder))
  config = folder / 'config.json'
  content = json.loads(config.read_text()) | {'tie_word_embeddings': False}
  config.write_text(json.dumps(content))
  change(folder, **{'lm_head.weight': None})
  assert f'{folder} lacks lm_head.weight' in message(folder)
  change(folder, **{'lm_head.weight': table + 1})
  opened = open_pretrained(str(folder))  # --dry-run reads no values
  with pytest.raises(UserError, match=told):
    verify(opened)


def test_two_models_in_one_file(tmp_path):
  table = np.ones((4, 4), np.float32)
  file = tmp_path / 'two.safetensors'
  save_file(
    {'a.embed_tokens.weight': table, 'b.embed_tokens.weight': table}, file
  )
  assert 'more than one gemma' in message(file)


def keep(name, dtype):
  return dtype


def weights(folder) -> Weights:
  source = open_pretrained(str(folder))
  return Weights(source.arrays, source.configs)


class Broken:
  """An array whose file fails after it has been opened."""

  def __init__(self, array):
    self.shape, self.dtype = array.shape, array.dtype

  def read_into(self, out, where):
    raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('own', [True, False])
def test_no_partial_checkpoint_is_left(folder, tmp_path, own):
  good = weights(folder)
  name = 'gemma/stack/blocks/mlp/down'
  bad = Weights({**good.arrays, name: Broken(good.arrays[name])}, good.configs)
  out = tmp_path / 'out'
  with pytest.raises(UserError, match='cannot be written: No space left'):
    if own:
      export_own(bad, out, keep)
    else:
      export(bad, 'gemma', out, keep)
  assert [p.name for p in tmp_path.iterdir()] == ['hf']
  export_own(good, out, keep)
  with pytest.raises(UserError, match='exists and is not empty'):
    export_own(good, out, keep)


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  (tmp_path / 'link').symlink_to(tmp_path / 'nothing')
  for place, why in (
    ('file', 'exists and is not empty'),
    ('link', 'exists and is not empty'),
    ('file/below/it', 'cannot be written: Not a directory'),
  ):
    with pytest.raises(UserError, match=f'{tmp_path / place} {why}'):
      check_new(tmp_path / place)
  check_new(tmp_path / 'new' / 'folder')
  assert not (tmp_path / 'new').exists()


def test_a_damaged_tensor_of_ours(folder, tmp_path):
  out = tmp_path / 'out'
  export_own(weights(folder), out, keep)
  verify(open_pretrained(str(out)))
  file = out / 'model.safetensors'
  content = bytearray(file.read_bytes())
  content[-3] ^= 1
  file.write_bytes(content)
  source = open_pretrained(str(out))
  with pytest.raises(UserError, match=f'in {file} does not have its checksum'):
    verify(source)


def test_a_tensor_of_ours_that_is_gone(folder, tmp_path):
  """Also of what has no config of its own, such as the connector."""
  good = weights(folder)
  more = {'head/x': Constant(np.ones(3, np.float32))}
  out = tmp_path / 'out'
  export_own(Weights({**good.arrays, **more}, good.configs), out, keep)
  for name in ('head/x', 'gemma/final_norm/scale'):
    change(out, **{name: None})
    assert f'{out} does not fit: {name} is missing' in message(out)
  assert 'gemma/final_norm/scale is missing' in message(out, ('gemma',))


def test_a_connector_without_its_bias(tmp_path):
  hub.save(hub.paligemma('gemma 1 MQA', 'one patch'), tmp_path)
  name = 'multi_modal_projector.linear.bias'
  change(tmp_path, **{name: None})
  assert f'{name} is missing' in message(tmp_path)


def test_half_precision_files(tmp_path):
  """float16 and bfloat16 are kept, and mixed ones become float32."""
  import torch  # noqa: PLC0415

  from unifluid_jax.weights.assembly import read  # noqa: PLC0415

  model = hub.siglip('one layer')
  for dtype, name in ((torch.float16, 'float16'), (torch.bfloat16, 'bfloat16')):
    folder = hub.save(model.to(dtype), tmp_path / name)
    for array in open_pretrained(str(folder)).arrays.values():
      assert array.dtype == np.dtype(name)
      wide = read(array, dtype=np.float32)
      np.testing.assert_array_equal(wide, read(array).astype(np.float32))
  key = 'encoder.layers.0.self_attn.k_proj.weight'
  folder = tmp_path / 'bfloat16'
  key_values = load_file(folder / 'model.safetensors')[key]
  change(folder, **{key: key_values.astype(np.float32)})
  array = open_pretrained(str(folder)).arrays[
    'encoder/stack/blocks/attention/query_key_value'
  ]
  assert array.dtype == np.float32
  found = read(array)[0, :, 1].reshape(20, 20).T
  np.testing.assert_array_equal(found, key_values.astype(np.float32))
  assert key_values.dtype == ml_dtypes.bfloat16


def test_a_zip_that_is_no_npz(tmp_path):
  file = tmp_path / 'a.npz'
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('params/img/x.npy', b'no array')
  assert f'{file} is not a complete .npz' in message(file)


def test_what_is_no_file_of_weights(folder, tmp_path):
  weights_file = folder / 'model.safetensors'
  weights_file.unlink()
  weights_file.symlink_to(tmp_path / 'nothing')
  assert f'{weights_file} is not a file, or is a broken link' in message(folder)
  import torch  # noqa: PLC0415

  file = tmp_path / 'a.ckpt'
  file.touch()
  assert f'{file} cannot be read as plain tensors' in message(file)
  torch.save({'embed': torch.ones(3000)}, file)
  file.write_bytes(file.read_bytes()[:9000])
  assert f'{file} cannot be read as plain tensors' in message(file)
  torch.save({1: torch.ones(2)}, file)
  assert 'its tensors are none' in message(file)


class Program:
  """What a pickle may hold in place of tensors."""

  def __init__(self, ran):
    self._ran = ran

  def __reduce__(self):
    return self._ran.touch, ()


@pytest.mark.parametrize('suffix', ['ckpt', 'bin', 'npz'])
def test_no_program_in_a_file_is_run(suffix, tmp_path):
  import torch  # noqa: PLC0415

  file, ran = tmp_path / f'a.{suffix}', tmp_path / 'ran'
  content = {'params/img/x': np.array([Program(ran)], object)}
  if suffix == 'npz':
    np.savez(file, **content)
  else:
    torch.save(content, file)
  told = message(file)
  assert str(file) in told and 'weights_only' not in told
  if suffix != 'npz':
    assert 'which might run anything' in told
  assert not ran.exists()
