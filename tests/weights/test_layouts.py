"""Every family of files gives the parameters of transformers' or diffusers'."""

import functools
import zipfile

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from safetensors.numpy import save_file
from transformers import (
  Gemma3Config,
  Gemma3ForConditionalGeneration,
  SiglipConfig,
  SiglipModel,
)

from tests.weights import hub, official
from unifluid_jax.models.sizes import GEMMA_SIZES
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.format_detection import shape_problems
from unifluid_jax.weights.layouts import flax_gemma_layout
from unifluid_jax.weights.layouts.tensor_layout import Tensor
from unifluid_jax.weights.pretrained import open_pretrained


def weights_of(model) -> dict[str, np.ndarray]:
  """All tensors by transformers' names."""
  return {name: v.detach().numpy() for name, v in model.state_dict().items()}


def values(source) -> dict[str, np.ndarray]:
  return {name: read(array) for name, array in source.arrays.items()}


def assert_equal(found: dict, expected: dict):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == value.dtype, name
    np.testing.assert_array_equal(found[name], value, name)


@functools.cache
def from_hub(make, *cases, folder) -> tuple:
  """A model's weights, and what our importer makes of its own files."""
  model = make(*cases)
  source = open_pretrained(str(hub.save(model, folder)))
  return weights_of(model), source, values(source)


@pytest.mark.parametrize('layout', ['flat', 'nested'])
@pytest.mark.parametrize(
  ('case', 'turned'),
  [
    ('gemma 1 MQA', False),
    ('gemma 1 MHA', False),
    ('gemma 2 GQA', False),
    ('gemma 2 GQA', True),
    ('gemma 3 MQA', True),
  ],
)
def test_official_checkpoints(case, turned, layout, tmp_path):
  weights, source, expected = from_hub(hub.gemma, case, folder=tmp_path / 'hf')
  config = source.configs['gemma']
  mha = config.heads == config.kv_heads
  tree = official.gemma_values(weights, config, turned, mha)
  shapes = official.gemma_shapes(config, turned, mha)
  assert {name: v.shape for name, v in tree.items()} == shapes
  folder = tmp_path / 'official'
  ocp.PyTreeCheckpointer().save(folder, getattr(official, layout)(tree))
  found = open_pretrained(str(folder), configs={'gemma': config})
  assert_equal(values(found), expected)
  inferred = open_pretrained(str(folder)).configs['gemma']
  for key in ('width', 'layers', 'heads', 'kv_heads', 'head_dim', 'mlp_dim'):
    assert getattr(inferred, key) == getattr(config, key), key
  assert inferred.post_norms == config.post_norms
  assert inferred.qk_norm == config.qk_norm


@pytest.mark.parametrize(
  ('size', 'turned'),
  [
    ('gemma2_2b', False),
    ('gemma2_9b', True),
    ('gemma2_27b', True),
    ('gemma3_27b', True),
  ],
)
def test_official_shapes_of_published_sizes(size, turned):
  config = GEMMA_SIZES[size]
  header = {
    name.removeprefix('transformer/').replace('&', '/'): Tensor(s, 'x', 'f')
    for name, s in official.gemma_shapes(config, turned, mha=False).items()
  }
  layout = flax_gemma_layout.OFFICIAL_LAYOUT
  assert not shape_problems(layout, '', config, header)
  del header['layer_1/mlp/linear/w']
  header['final_norm/scale'] = Tensor((7,), 'x', 'f')
  assert shape_problems(layout, '', config, header) == [
    f'final_norm/scale in f is [7] where [{config.width}] is wanted',
    'layer_1/mlp/linear/w is missing',
  ]


@pytest.mark.parametrize('stacked', [True, False])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_big_vision_siglip(save, stacked, tmp_path):
  weights, source, expected = from_hub(
    hub.siglip, 'three heads', folder=tmp_path / 'hf'
  )
  config = source.configs['encoder']
  tree = official.siglip(weights, config, '', stacked)
  tree |= {
    'params/txt/Embed_0/embedding': np.ones((3, 4), np.float32),
    'params/t': np.float32(1),
    'params/b': np.float32(1),
    'params/img/MAPHead_0/probe': np.ones((1, 1, 24), np.float32),
  }
  save(tmp_path / 'siglip.npz', **tree)
  found = open_pretrained(str(tmp_path / 'siglip.npz'))
  assert found.configs['encoder'] == config
  assert_equal(values(found), expected)


@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize('text', ['gemma 1 MQA', 'gemma 2 GQA'])
def test_big_vision_paligemma(text, dtype, tmp_path):
  weights, source, expected = from_hub(
    hub.paligemma, text, 'three heads', folder=tmp_path / 'hf'
  )
  config = source.configs['gemma']
  tree = official.paligemma(weights, source.configs)
  tree = {name: value.astype(dtype) for name, value in tree.items()}
  np.savez(tmp_path / 'pali.npz', **tree)
  wanted = {'gemma': config}
  found = open_pretrained(str(tmp_path / 'pali.npz'), configs=wanted)
  expected = {name: value.astype(dtype) for name, value in expected.items()}
  assert_equal(values(found), expected)
  # The parts alone: what belongs to the others is not left over.
  for part in ('gemma', 'encoder', 'connector'):
    alone = open_pretrained(str(tmp_path / 'pali.npz'), (part,), wanted)
    assert alone.arrays and all(n.startswith(part) for n in alone.arrays)


@pytest.mark.parametrize(
  ('text', 'vision'),
  [
    ('language_model.model.', 'vision_tower.vision_model.'),
    ('language_model.model.', 'vision_tower.'),
    ('model.language_model.', 'model.vision_tower.vision_model.'),
    ('model.language_model.', 'model.vision_tower.'),
  ],
)
def test_prefixes_of_paligemma(text, vision, tmp_path):
  model = hub.paligemma('gemma 2 MQA', 'one layer')
  hub.save(model, tmp_path)
  expected = values(open_pretrained(str(tmp_path)))
  renamed = {}
  for name, value in weights_of(model).items():
    if name.startswith('lm_head'):
      continue
    name = name.replace('model.language_model.', text)
    name = name.replace('model.vision_tower.', vision)
    if not text.startswith('model.'):
      name = name.replace('model.multi_modal', 'multi_modal')
    renamed[name] = np.ascontiguousarray(value)
  save_file(renamed, tmp_path / 'model.safetensors')
  assert_equal(values(open_pretrained(str(tmp_path))), expected)


def test_models_around_the_parts(tmp_path):
  """Gemma 3 with its image tower, and SigLIP with its text tower."""
  text = hub.gemma_config('gemma 3 GQA', vocab_size=64)
  vision = hub.siglip_config('one layer', vision_use_head=False)
  gemma3 = Gemma3ForConditionalGeneration(
    Gemma3Config(
      text_config=text.to_dict(),
      vision_config=vision.to_dict(),
      mm_tokens_per_image=4,
    )
  )
  hub.save(hub.randomize(gemma3), tmp_path / 'gemma3')
  found = open_pretrained(str(tmp_path / 'gemma3'), ('gemma',))
  weights = weights_of(gemma3)
  np.testing.assert_array_equal(
    read(found.arrays['gemma/final_norm/scale']),
    weights['model.language_model.norm.weight'],
  )
  assert any('vision_tower' in name for name in found.unused)
  assert any('mm_soft_emb_norm' in name for name in found.unused)
  config = found.configs['gemma']
  assert (config.rope_scaling, config.rope_theta) == (8.0, 1e6)
  words = {'vocab_size': 32, 'hidden_size': 20, 'num_attention_heads': 2}
  words |= {'num_hidden_layers': 1, 'intermediate_size': 8}
  both = SiglipModel(
    SiglipConfig(
      text_config=words,
      vision_config=hub.siglip_config('one layer').to_dict(),
    )
  )
  hub.save(hub.randomize(both), tmp_path / 'siglip')
  found = open_pretrained(str(tmp_path / 'siglip'))
  weights = weights_of(both)
  np.testing.assert_array_equal(
    read(found.arrays['encoder/position_embedding']),
    weights['vision_model.embeddings.position_embedding.weight'],
  )
  assert any('text_model' in name for name in found.unused)


@pytest.mark.parametrize('how', ['missing', 'truncated'])
def test_a_damaged_orbax_checkpoint(how, tmp_path):
  weights, source, _ = from_hub(
    hub.gemma, 'gemma 2 GQA', folder=tmp_path / 'hf'
  )
  config = source.configs['gemma']
  tree = official.gemma_values(weights, config, turned=False, mha=False)
  folder = tmp_path / 'official'
  ocp.PyTreeCheckpointer().save(folder, official.flat(tree))
  for file in folder.rglob('d/*'):
    if how == 'missing':
      file.unlink()
    else:
      file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(UserError, match='official'):
    values(open_pretrained(str(folder), configs={'gemma': config}))


def vae_weights(case, tmp_path):
  model = hub.vae(case)
  hub.save(model, tmp_path)
  return weights_of(model), values(open_pretrained(str(tmp_path)))


@pytest.mark.parametrize('case', hub.VAE)
def test_old_names_of_diffusers(case, tmp_path):
  weights, expected = vae_weights(case, tmp_path)
  renamed = official.old_attention(weights)
  assert ('mid_block' in ''.join(renamed)) and renamed.keys() != weights.keys()
  save_file(renamed, tmp_path / 'diffusion_pytorch_model.safetensors')
  assert_equal(values(open_pretrained(str(tmp_path))), expected)


@pytest.mark.parametrize('case', hub.VAE)
@pytest.mark.parametrize('form', ['mar', 'stable diffusion', 'safetensors'])
def test_ldm(case, form, tmp_path):
  weights, expected = vae_weights(case, tmp_path / 'hf')
  config = open_pretrained(str(tmp_path / 'hf')).configs['vae']
  levels = len(config.widths)
  prefix = 'first_stage_model.' if form == 'stable diffusion' else ''
  renamed = official.ldm(weights, levels, prefix)
  tensors = {name: torch.tensor(value) for name, value in renamed.items()}
  if form == 'mar':
    path = tmp_path / 'kl16.ckpt'
    torch.save({'model': tensors, 'epoch': 3}, path)
  elif form == 'stable diffusion':
    path = tmp_path / 'model.ckpt'
    aside = {
      'model.diffusion_model.out.2.bias': torch.ones(3),
      'betas': torch.ones(3),
      'cond_stage_model.x': torch.ones(3),
    }
    torch.save({'state_dict': tensors | aside, 'global_step': 1}, path)
  else:
    path = tmp_path / 'vae.safetensors'
    save_file(renamed, path)
  found = open_pretrained(str(path), configs={'vae': config})
  assert_equal(values(found), expected)
  inferred = open_pretrained(str(path)).configs['vae']
  for key in ('widths', 'latent_channels', 'quant_convs', 'attention_levels'):
    assert getattr(inferred, key) == getattr(config, key), key


def test_a_pickle_runs_no_code(tmp_path):
  class Evil:
    def __reduce__(self):
      return (print, ('code ran',))

  torch.save({'x': Evil()}, tmp_path / 'evil.ckpt')
  with pytest.raises(UserError, match='cannot be read as plain tensors'):
    open_pretrained(str(tmp_path / 'evil.ckpt'))
  objects = np.array([Evil()], dtype=object)
  np.savez(tmp_path / 'evil.npz', **{'params/img/x': objects})
  with pytest.raises(UserError, match='evil.npz'):
    open_pretrained(str(tmp_path / 'evil.npz'))


def test_nothing_of_a_stored_npz_is_copied(tmp_path):
  from unifluid_jax.weights.readers.npz_reader import NpzReader  # noqa: PLC0415

  array = np.arange(12, dtype=np.float32).reshape(3, 4)
  np.savez(tmp_path / 'a.npz', x=array, y=np.asfortranarray(array))
  reader = NpzReader(tmp_path / 'a.npz')
  for name in ('x', 'y'):
    found = reader.read(name)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, array)
  with zipfile.ZipFile(tmp_path / 'a.npz') as archive:
    assert {i.compress_type for i in archive.infolist()} == {0}
