"""Import, then export: the same bytes; and other projects read them."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.numpy import load_file

from tests.weights import hub, official
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import conversion_table, safetensors_file
from unifluid_jax.weights.assembly import Constant, read
from unifluid_jax.weights.export import Weights, export, export_own
from unifluid_jax.weights.pretrained import Pretrained, open_pretrained
from unifluid_jax.weights.safetensors_file import entry, write


def keep(name, dtype):
  return dtype


def weights(source: Pretrained) -> Weights:
  return Weights(
    source.arrays,
    source.configs,
    {name: part.carried for name, part in source.parts.items()},
    {name: part.prefix for name, part in source.parts.items()},
  )


def tensors(folder) -> dict[str, np.ndarray]:
  result = {}
  for file in folder.glob('*.safetensors'):
    result |= load_file(file)
  return result


def assert_same_bytes(first, second):
  one, other = tensors(first), tensors(second)
  assert one.keys() == other.keys()
  for name, value in one.items():
    assert value.dtype == other[name].dtype, name
    assert value.shape == other[name].shape, name
    assert value.tobytes() == other[name].tobytes(), name


CASES = [
  *(('gemma', hub.gemma, case) for case in hub.GEMMA),
  *(('siglip', hub.siglip, case) for case in hub.SIGLIP),
  *(('autoencoder', hub.vae, case) for case in hub.VAE),
]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.half])
@pytest.mark.parametrize(('target', 'make', 'case'), CASES)
def test_round_trips_are_byte_equal(target, make, case, dtype, tmp_path):
  """Straight, and by way of our own layout."""
  hf = hub.save(make(case).to(dtype), tmp_path / 'hf')
  source = open_pretrained(str(hf))
  export(weights(source), target, tmp_path / 'straight', keep)
  assert_same_bytes(hf, tmp_path / 'straight')
  export_own(weights(source), tmp_path / 'own', keep)
  stored = weights(open_pretrained(str(tmp_path / 'own')))
  assert stored.configs == source.configs
  prefixes = json.loads((tmp_path / 'own' / 'config.json').read_text())
  again = Weights(
    stored.arrays, stored.configs, stored.carried, prefixes['prefixes']
  )
  export(again, target, tmp_path / 'again', keep)
  assert_same_bytes(hf, tmp_path / 'again')


@pytest.mark.parametrize('case', ['gemma 1 MQA', 'gemma 2 GQA', 'gemma 3 MHA'])
def test_transformers_reads_an_export(case, tmp_path):
  hf = hub.gemma(case)
  source = open_pretrained(str(hub.save(hf, tmp_path / 'hf')))
  export(weights(source), 'gemma', tmp_path / 'out', keep)
  loaded, info = type(hf).from_pretrained(
    tmp_path / 'out', output_loading_info=True, attn_implementation='eager'
  )
  assert not any(info.values())
  tokens = torch.arange(24).reshape(2, 12)
  with torch.no_grad():
    assert torch.equal(hf(tokens).logits, loaded.eval()(tokens).logits)


@pytest.mark.parametrize('prefix', ['vision_model.', ''])
def test_transformers_reads_an_encoder_without_its_head(prefix, tmp_path):
  hf = hub.siglip('three heads')
  source = open_pretrained(str(hub.save(hf, tmp_path / 'hf')))
  bare = Weights(source.arrays, source.configs, prefixes={'encoder': prefix})
  export(bare, 'siglip', tmp_path / 'out', keep)
  loaded, info = type(hf).from_pretrained(
    tmp_path / 'out', output_loading_info=True
  )
  assert not any(info.values())
  pixels = torch.rand(1, 3, 21, 21)
  with torch.no_grad():
    expected = hf(pixels).last_hidden_state
    found = loaded.eval()(pixels).last_hidden_state
  torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_diffusers_reads_an_export_of_ldm(tmp_path):
  hf = hub.vae('attention', scaling_factor=0.25)
  hub.save(hf, tmp_path / 'hf')
  config = open_pretrained(str(tmp_path / 'hf')).configs['vae']
  weights_hf = {name: v.numpy() for name, v in hf.state_dict().items()}
  from safetensors.numpy import save_file  # noqa: PLC0415

  save_file(official.ldm(weights_hf, 2), tmp_path / 'ldm.safetensors')
  source = open_pretrained(
    str(tmp_path / 'ldm.safetensors'), configs={'vae': config}
  )
  export(weights(source), 'autoencoder', tmp_path / 'out', keep)
  assert_same_bytes(tmp_path / 'hf', tmp_path / 'out')
  loaded, info = AutoencoderKL.from_pretrained(
    tmp_path / 'out', output_loading_info=True
  )
  assert not any(info.values())
  assert loaded.config.scaling_factor == 0.25
  assert loaded.config.down_block_types == hf.config.down_block_types


def test_measured_latent_statistics_come_back(tmp_path):
  """By channel, as diffusers' pipelines read them, and then bit for bit."""
  source = open_pretrained(str(hub.save(hub.vae('sd'), tmp_path / 'hf')))
  shift = np.arange(4, dtype=np.float32) / 3
  scale = np.float32(1.7) ** shift
  measured = {'vae/shift': Constant(shift), 'vae/scale': Constant(scale)}
  out = tmp_path / 'out'
  export(
    Weights({**source.arrays, **measured}, source.configs),
    'autoencoder',
    out,
    keep,
  )
  loaded = AutoencoderKL.from_pretrained(out).config
  assert (loaded.scaling_factor, loaded.shift_factor) == (1.0, None)
  assert np.float32(loaded.latents_mean).tobytes() == shift.tobytes()
  assert np.float32(loaded.latents_std).tobytes() == scale.tobytes()
  # Also where the config of a run says how the statistics began.
  for configs in (None, source.configs):
    back = open_pretrained(str(out), configs=configs)
    assert read(back.arrays['vae/shift']).tobytes() == shift.tobytes()
    assert read(back.arrays['vae/scale']).tobytes() == scale.tobytes()
  # A scaling_factor beside them multiplies, as in diffusers.
  file = out / 'config.json'
  content = json.loads(file.read_text()) | {'scaling_factor': 0.5}
  file.write_text(json.dumps(content))
  found = read(open_pretrained(str(out)).arrays['vae/scale'])
  np.testing.assert_allclose(found, 2 * scale, rtol=1e-7)


@pytest.mark.parametrize(('factor', 'shift'), [(0.18215, None), (1.5, -0.2)])
def test_factors_of_an_autoencoder_come_back(factor, shift, tmp_path):
  hf = hub.vae('sd', scaling_factor=factor, shift_factor=shift)
  source = open_pretrained(str(hub.save(hf, tmp_path / 'hf')))
  export(weights(source), 'autoencoder', tmp_path / 'out', keep)
  loaded = AutoencoderKL.from_pretrained(tmp_path / 'out').config
  assert loaded.shift_factor == shift
  np.testing.assert_allclose(loaded.scaling_factor, factor, rtol=1e-12)
  back = open_pretrained(str(tmp_path / 'out'), configs=source.configs)
  for name in ('vae/shift', 'vae/scale'):
    found, expected = read(back.arrays[name]), read(source.arrays[name])
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
  ('case', 'changed', 'told'),
  [
    ('gemma 1 MQA', {'final_softcap': 9.0}, 'final_softcap is None in the fi'),
    ('gemma 1 MQA', {'pattern': ('local',), 'window': 4}, 'pattern is'),
    ('gemma 1 MQA', {'query_scale': 0.5}, 'query_scale is'),
    ('gemma 2 GQA', {'local_rope_theta': 9.0}, 'local_rope_theta is 10000.0'),
    ('gemma 2 GQA', {'rope_scaling': 8.0}, 'its sliding layers by 8.0'),
    ('gemma 3 GQA', {'attention_softcap': 9.0}, 'attention_softcap is None'),
  ],
)
def test_what_transformers_does_not_have(case, changed, told, tmp_path):
  source = open_pretrained(str(hub.save(hub.gemma(case), tmp_path / 'hf')))
  config = dataclasses.replace(source.configs['gemma'], **changed)
  other = Weights(source.arrays, {'gemma': config})
  with pytest.raises(
    UserError, match='transformers has no such gemma'
  ) as found:
    export(other, 'gemma', tmp_path / 'out', keep)
  assert told in str(found.value)
  assert not (tmp_path / 'out').exists()


def test_scaled_positions_of_global_layers_come_back(tmp_path):
  source = open_pretrained(
    str(hub.save(hub.gemma('gemma 1 GQA'), tmp_path / 'hf'))
  )
  config = dataclasses.replace(source.configs['gemma'], rope_scaling=4.0)
  export(
    Weights(source.arrays, {'gemma': config}), 'gemma', tmp_path / 'out', keep
  )
  assert open_pretrained(str(tmp_path / 'out')).configs['gemma'] == config


def test_a_folder_that_is_there(tmp_path, monkeypatch):
  """One that is empty, such as a mounted one, is used as it is."""
  source = open_pretrained(str(hub.save(hub.vae('sd'), tmp_path / 'hf')))
  out = tmp_path / 'out'
  out.mkdir()
  before = out.stat().st_ino
  monkeypatch.chdir(out)
  export_own(weights(source), pathlib.Path(), keep)
  assert out.stat().st_ino == before
  assert {f.name for f in out.iterdir()} == {'config.json', 'model.safetensors'}
  assert_same_bytes(out, out)
  with pytest.raises(UserError, match='is not empty'):
    export_own(weights(source), out, keep)


def test_a_killed_export_is_made_again(tmp_path):
  """What it leaves is hidden, no checkpoint, and in nobody's way."""
  source = open_pretrained(str(hub.save(hub.vae('sd'), tmp_path / 'hf')))
  for is_there in (False, True):
    out = tmp_path / f'out {is_there}'
    partial = (
      out / '.partial' if is_there else tmp_path / f'.{out.name}.partial'
    )
    partial.mkdir(parents=True)
    (partial / 'model.safetensors').write_bytes(b'half')
    export_own(weights(source), out, keep)
    assert not partial.exists()
    assert open_pretrained(str(out)).arrays.keys() == source.arrays.keys()


@pytest.mark.parametrize('moved', range(3))
def test_an_export_killed_as_it_is_moved(moved, tmp_path, monkeypatch):
  """Into a folder that was there: no model is seen, the next run makes it."""

  class Killed(BaseException):
    pass

  source = open_pretrained(str(hub.save(hub.vae('sd'), tmp_path / 'hf')))
  out = tmp_path / 'out'
  out.mkdir()
  rename, left = pathlib.Path.rename, [moved]

  def kill(self, target):
    if not left[0]:
      raise Killed
    left[0] -= 1
    return rename(self, target)

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'rename', kill)
    # What a kill leaves no time for.
    patch.setattr(safetensors_file, '_clear', lambda path: None)
    patch.setattr(safetensors_file.shutil, 'rmtree', lambda *_, **__: None)
    if moved < 2:
      with pytest.raises(Killed):
        export_own(weights(source), out, keep)
    else:
      export_own(weights(source), out, keep)
  assert (out / 'config.json').exists() == (moved == 2)
  if moved < 2:
    (out / 'model-00002-of-00002.safetensors').touch()  # Of larger shards.
    export_own(weights(source), out, keep)
  assert_same_bytes(out, out)
  names = {'config.json', 'model.safetensors'}
  assert {file.name for file in out.iterdir()} - {'.partial'} == names
  with pytest.raises(UserError, match='is not empty'):
    export_own(weights(source), out, keep)


def test_a_part_that_is_not_there(tmp_path):
  source = open_pretrained(str(hub.save(hub.vae('sd'), tmp_path / 'hf')))
  with pytest.raises(UserError, match='there is no gemma to export'):
    export(weights(source), 'gemma', tmp_path / 'out', keep)
  assert not (tmp_path / 'out').exists()


def test_what_is_carried_has_the_dtype_of_its_part(tmp_path):
  source = open_pretrained(
    str(hub.save(hub.siglip('one layer'), tmp_path / 'hf'))
  )

  def dtype_of(name, dtype):
    return np.dtype('bfloat16') if name.startswith('encoder/') else dtype

  export(weights(source), 'siglip', tmp_path / 'out', dtype_of)
  assert {str(v.dtype) for v in tensors(tmp_path / 'out').values()} == {
    'bfloat16'
  }
  export_own(weights(source), tmp_path / 'own', dtype_of)
  assert {str(v.dtype) for v in tensors(tmp_path / 'own').values()} == {
    'bfloat16'
  }


def test_dtypes_by_name(tmp_path):
  source = open_pretrained(str(hub.save(hub.gemma('gemma 2 GQA'), tmp_path)))

  def dtype_of(name, dtype):
    return np.dtype('bfloat16' if '/mlp/' in name else 'float32')

  export(weights(source), 'gemma', tmp_path / 'out', dtype_of)
  before, after = tensors(tmp_path), tensors(tmp_path / 'out')
  for name, value in after.items():
    expected = before[name]
    if 'mlp.' in name:
      assert value.dtype == 'bfloat16'
      expected = torch.tensor(expected).bfloat16().float().numpy()
    np.testing.assert_array_equal(value.astype(np.float32), expected)


def test_shards(tmp_path):
  """Large models are written as transformers splits them."""
  rng = np.random.default_rng(0)
  arrays = {
    f'x{i}': rng.normal(size=(11, 7)).astype(np.float32) for i in range(5)
  }
  arrays['scalar'] = np.array(3, np.float32)
  entries = {n: entry(n, Constant(a), a.dtype) for n, a in arrays.items()}
  checksums = write(tmp_path, 'model', entries, shard_bytes=700)
  files = sorted(f.name for f in tmp_path.glob('*.safetensors'))
  assert files == [f'model-0000{i}-of-00003.safetensors' for i in (1, 2, 3)]
  found = tensors(tmp_path)
  assert found.keys() == arrays.keys() == checksums.keys()
  for name, value in arrays.items():
    assert found[name].tobytes() == value.tobytes()
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  assert index['metadata']['total_size'] == sum(
    a.nbytes for a in arrays.values()
  )
  assert {*index['weight_map'].values()} == {*files}


def test_the_table_needs_no_values(tmp_path, monkeypatch):
  hub.save(hub.paligemma('gemma 2 GQA', 'three heads'), tmp_path)
  monkeypatch.setattr(np, 'memmap', None)
  lines = list(conversion_table.lines(open_pretrained(str(tmp_path))))
  text = '\n'.join(lines)
  assert (
    'gemma/stack/blocks/attention/key_value [3, 20, 2, 2, 6] float32 5.76 kB '
    '<- layers.*.self_attn.k_proj.weight [12, 20] x 3 + '
    'layers.*.self_attn.v_proj.weight [12, 20] x 3'
  ) in text
  assert 'connector [24, 20] float32 1.92 kB <- ' in text


def test_the_table_of_a_run():
  arrays = {'b/x': Constant(np.ones((2, 3), np.float32))}
  arrays |= {'a': Constant(np.ones(5, 'bfloat16'))}
  assert list(conversion_table.lines_of_ours(arrays)) == [
    '  a [5] bfloat16 10 B',
    '  b/x [2, 3] float32 24 B',
    '2 parameters, 34 B',
  ]


def test_reading_a_part_of_an_array(tmp_path):
  source = open_pretrained(str(hub.save(hub.gemma('gemma 3 GQA'), tmp_path)))
  rng = np.random.default_rng(0)
  for array in source.arrays.values():
    whole = read(array)
    for _ in range(5):
      bounds = [sorted(rng.integers(0, n + 1, 2)) for n in array.shape]
      where = tuple(slice(int(a), int(b)) for a, b in bounds)
      np.testing.assert_array_equal(read(array, where), whole[where])
