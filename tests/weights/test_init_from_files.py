"""Runs that start from files: what is loaded, frozen, fresh, and refused."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests.configs import tiny
from tests.weights import hub
from unifluid_jax import inference
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import UNKNOWN_BOI, make_unifluid_spec
from unifluid_jax.config.sections.init import InitConfig
from unifluid_jax.training import unifluid_run, vae_run
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import initial_parameters, restore
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.export import Held, Weights, export_own
from unifluid_jax.weights.init_from_files import check_complete
from unifluid_jax.weights.pretrained import open_pretrained

NEW = ('^connector', '^(token|mask)_', '_positions$', '^head/')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """A Gemma, a SigLIP, a VAE and a PaliGemma as their projects save them."""
  folder = tmp_path_factory.mktemp('files')
  hub.save(hub.gemma('gemma 2 GQA', vocab_size=310), folder / 'gemma')
  hub.save(hub.siglip('one layer'), folder / 'siglip')
  hub.save(hub.vae('sd'), folder / 'vae')
  hub.save(hub.paligemma('gemma 2 GQA', 'one layer'), folder / 'paligemma')
  return folder


def config_of(files, **init) -> ml_collections.ConfigDict:
  """The tiny experiment in the shapes of the files."""
  config = tiny.get_config()
  gemma = open_pretrained(str(files / 'gemma')).configs['gemma']
  config.model.gemma = to_dict(dataclasses.replace(gemma, vocab_size=320))
  config.model.encoder = to_dict(
    open_pretrained(str(files / 'siglip')).configs['encoder']
  )
  config.vae = to_dict(open_pretrained(str(files / 'vae')).configs['vae'])
  config.model.patch = 2
  config.training.steps = 1
  config.optimizer.learning_rate = 0.0
  config.init = {
    'backbone': str(files / 'gemma'),
    'encoder': str(files / 'siglip'),
    'vae': str(files / 'vae'),
    'frozen': ('^encoder/',),
    'new': NEW,
    'new_rows': 'mean',
    **init,
  }
  return config


def values(path) -> dict[str, np.ndarray]:
  arrays = open_pretrained(str(path)).arrays
  return {name: read(array) for name, array in arrays.items()}


@pytest.mark.slow
def test_a_run_from_files(files, tmp_path):
  copies = tmp_path / 'files'
  shutil.copytree(files, copies)
  config = config_of(copies, dtype=('^encoder/.*mlp=bfloat16',))
  experiment = build(Experiment, config)
  workdir = tmp_path / 'run'
  workdir.mkdir()
  vae_run.train_vae(experiment, workdir / 'vae')
  state = unifluid_run.train_unifluid(experiment, workdir)
  assert int(state.step) == 1
  gemma, siglip = values(files / 'gemma'), values(files / 'siglip')
  for name, value in gemma.items():
    found = state.params[name]
    assert found.dtype == jnp.float32
    if name == 'gemma/embedding':
      assert found.shape == (320, 20)
      found = found[:310]
    np.testing.assert_array_equal(found, value, name)
  for name, value in siglip.items():
    found = state.frozen[name]
    assert name not in state.params
    if name.endswith(('mlp/up', 'mlp/down')):
      assert found.dtype == jnp.bfloat16
      value = value.astype(found.dtype)
    else:
      assert found.dtype == jnp.float32, name
    np.testing.assert_array_equal(found, value, name)
  for name, value in values(files / 'vae').items():
    np.testing.assert_array_equal(state.vae[name.removeprefix('vae/')], value)
  fresh = {*state.params} - {*gemma}
  assert 'connector' in fresh and 'token_in' in fresh
  assert all(
    name.startswith(('connector', 'token_', 'known_', 'target_', 'head/'))
    for name in fresh
  )
  # It goes on, and is used, without the files.
  shutil.rmtree(copies)
  config.training.steps = 2
  state = unifluid_run.train_unifluid(build(Experiment, config), workdir)
  assert int(state.step) == 2
  model = inference.load(workdir)
  assert model.caption([np.zeros((16, 16, 3), np.uint8)])
  _check_export(model, experiment, workdir, tmp_path / 'export')


def _check_export(model, experiment, workdir, out):
  """The whole model in our own layout comes back bit for bit."""
  tokenizer = (workdir / 'tokenizer.model').read_bytes()
  trained = restore.restore_ema_weights(experiment, model.tokenizer, workdir)
  arrays = trained.unifluid | {f'vae/{n}': v for n, v in trained.vae.items()}
  weights = Weights(
    {name: Held(value) for name, value in arrays.items()},
    {
      'gemma': experiment.model.gemma,
      'encoder': experiment.model.encoder,
      'vae': experiment.vae,
    },
    experiment=to_dict(experiment),
    step=trained.step,
    tokenizer=tokenizer,
  )
  export_own(weights, out, lambda name, dtype: dtype)
  found = values(out)
  assert found.keys() == arrays.keys()
  for name, value in arrays.items():
    assert found[name].dtype == value.dtype
    assert found[name].tobytes() == np.asarray(value).tobytes(), name
  again = inference.load(out)
  drawn, expected = (m.generate(['a fox'], seed=3) for m in (again, model))
  np.testing.assert_array_equal(drawn.tokens, expected.tokens)
  np.testing.assert_array_equal(drawn.images, expected.images)
  _check_step_of_an_export(dataclasses.replace(weights, step=3), out)


def _check_step_of_an_export(weights, out):
  """Half way through its fade to raster order, it draws in random order."""
  training = {'steps': 9, 'order': 'anneal', 'anneal_steps': (2, 6)}
  experiment = weights.experiment | {
    'training': weights.experiment['training'] | training
  }
  shutil.rmtree(out)
  export_own(
    dataclasses.replace(weights, experiment=experiment),
    out,
    lambda name, dtype: dtype,
  )
  assert '| trained for | 3 of 9 steps, ' in (out / 'README.md').read_text()
  assert not inference.load(out).raster
  file = out / 'config.json'
  content = json.loads(file.read_text())
  del content['step']  # An older export's is taken for that of the end.
  file.write_text(json.dumps(content))
  assert inference.load(out).raster
  file.write_text(json.dumps(content | {'step': '6'}))
  with pytest.raises(UserError, match="is damaged: step is '6'"):
    inference.load(out)
  file.write_text(json.dumps(content | {'experiment': None}))
  with pytest.raises(UserError, match='is damaged: experiment is None'):
    inference.load(out)


def load_start(config):
  experiment = build(Experiment, config)
  spec = make_unifluid_spec(experiment, UNKNOWN_BOI)
  return initial_parameters.load_start(experiment, spec, {})


def test_paligemma_gives_three_parts(files):
  path = str(files / 'paligemma')
  config = config_of(files, backbone=path, encoder=path)
  config.model.gemma.window = 64
  config.init.new = ('^token_', '_positions$', '^head/')
  start = load_start(config)
  expected = values(path)
  assert start.keys() == expected.keys()
  assert {'connector', 'connector_bias'} <= start.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(start[name][: len(value)], value, name)


def test_a_converted_checkpoint_is_a_source(files, tmp_path):
  source = open_pretrained(str(files / 'gemma'))
  weights = Weights(source.arrays, source.configs)
  export_own(weights, tmp_path / 'own', lambda name, dtype: dtype)
  config = config_of(files, backbone=str(tmp_path / 'own'))
  start = load_start(config)
  expected = load_start(config_of(files))
  assert start.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(start[name], value, name)


@pytest.mark.parametrize(
  ('init', 'message'),
  [
    ({'new': ('^head/',)}, r'no source for \d+ parameters: connector'),
    ({'encoder': ''}, r'no source for \d+ parameters: encoder/'),
    ({'new': (*NEW, '^haed/')}, "'\\^haed/', which matches no parameter"),
    ({'frozen': ('^enc$',)}, "init.frozen has '\\^enc\\$'"),
    (
      {'dtype': ('^en=bfloat16', 'ecn=float32')},
      "init.dtype has 'ecn=float32'",
    ),
    ({'new_rows': ''}, 'has 310 rows and the vocabulary 320'),
    ({'backbone': 'no/such'}, 'no/such does not exist'),
  ],
)
def test_nothing_is_silently_random(files, init, message):
  with pytest.raises(UserError, match=message):
    load_start(config_of(files, **init))


def test_other_shapes_stop_the_run(files):
  config = config_of(files)
  config.model.gemma.mlp_dim = 38
  with pytest.raises(UserError, match='mlp_dim is 37 in the file and 38'):
    load_start(config)
  (files / 'gemma' / 'config.json').rename(files / 'gemma' / 'hidden')
  try:
    with pytest.raises(UserError, match=r'gate_proj\S+ in \S+ is \[37, 20\]'):
      load_start(config)
  finally:
    (files / 'gemma' / 'hidden').rename(files / 'gemma' / 'config.json')


def test_a_run_from_nothing_needs_no_lists():
  check_complete(InitConfig(), (), ('gemma/x', 'head/y'))
  with pytest.raises(UserError, match='init.new_rows'):
    InitConfig(new_rows='zeros')
  with pytest.raises(UserError, match='init.dtype'):
    InitConfig(dtype=('int8',))
  with pytest.raises(UserError, match='not a valid regular expression'):
    InitConfig(new=('(',))
