"""Every config file builds, and its small variant trains."""

import importlib
import pathlib
import shutil

import jax
import pytest

from unifluid_jax.config import build
from unifluid_jax.experiment import Experiment
from unifluid_jax.models import parameters
from unifluid_jax.runs import unifluid, vae
from unifluid_jax.training.metrics import read_log

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
HELPERS = ('__init__', 'arguments', 'tiny')
NAMES = sorted(p.stem for p in FOLDER.glob('*.py') if p.stem not in HELPERS)
VARIANTS = (
  *((name, '') for name in NAMES),
  ('ablation_order', 'order=raster'),
  ('ablation_order', 'order=anneal'),
  ('ablation_order', 'order=masked'),
  ('ablation_tasks', 'tasks=generation'),
  ('ablation_tasks', 'tasks=understanding'),
  ('ablation_language_model', 'start=scratch'),
)


def get_config(name, arg):
  return importlib.import_module(f'experiments.{name}').get_config(arg)


@pytest.mark.parametrize(('name', 'arg'), VARIANTS)
def test_a_config_builds(name, arg):
  experiment = build(Experiment, get_config(name, arg))
  assert experiment.token_dim and experiment.grid


@pytest.mark.parametrize('name', NAMES)
def test_a_config_is_new_at_each_call(name):
  first = get_config(name, '')
  first.data.rows = -1
  first.training.text_weight = -1.0
  again = get_config(name, '')
  assert again.data.rows != -1 and again.training.text_weight != -1.0


def test_an_unknown_argument_is_refused():
  with pytest.raises(ValueError, match="'colour=red' is unknown"):
    get_config('ablation_order', 'colour=red')


def test_published_sizes(letters):
  """Parameters of the paper's recipes, without making them."""
  for name, gemma in (('unifluid_0_7b', 743.9e6), ('unifluid_2b', 2024.5e6)):
    experiment = build(Experiment, get_config(name, ''))
    shapes = jax.eval_shape(
      lambda experiment=experiment: parameters.flatten(
        unifluid.make_unifluid(experiment, letters)
      )[1]
    )
    count = sum(
      shape.size
      for key, shape in shapes.items()
      if key.startswith('gemma/') and key != 'gemma/embedding'
    )
    assert abs(count - gemma) < 0.1e6


@pytest.fixture(scope='module')
def trained_vae(tmp_path_factory):
  """The small variants' VAE, which is the same for all."""
  workdir = tmp_path_factory.mktemp('vae')
  vae.train_vae(build(Experiment, get_config('quickstart', 'tiny')), workdir)
  return workdir


@pytest.fixture(scope='module')
def language_model(tmp_path_factory, trained_vae):
  """A run for `start=pretrained` to start from."""
  workdir = tmp_path_factory.mktemp('understanding')
  run('ablation_tasks', 'tasks=understanding,tiny', workdir, trained_vae)
  return workdir


def run(name, arg, workdir, trained_vae):
  shutil.copytree(trained_vae, workdir / 'vae')
  experiment = build(Experiment, get_config(name, arg))
  return unifluid.train_unifluid(experiment, workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'arg'), [v for v in VARIANTS if v != ('ablation_language_model', '')]
)
def test_a_small_variant_trains_two_steps(name, arg, tmp_path, trained_vae):
  run(name, f'{arg},tiny', tmp_path, trained_vae)
  log = read_log(tmp_path)
  assert [line['step'] for line in log] == [1, 2]


@pytest.mark.slow
def test_a_run_starts_from_another_ones_decoder(
  tmp_path, trained_vae, language_model
):
  arg = f'start=pretrained,source={language_model},tiny'
  config = get_config('ablation_language_model', arg)
  experiment = build(Experiment, config)
  tokenizer = experiment.make_tokenizer(tmp_path)
  taken = unifluid.load_start(experiment, tokenizer)
  other = unifluid.restore_averaged(
    unifluid.read_experiment(language_model), tokenizer, language_model
  )[1]
  assert taken
  for name, value in taken.items():
    assert name.startswith('gemma/')
    assert (value == other[name]).all()
  config.training.steps = 1
  config.optimizer.learning_rate = 0.0
  shutil.copytree(trained_vae, tmp_path / 'vae')
  state = unifluid.train_unifluid(build(Experiment, config), tmp_path)
  for name, value in taken.items():
    assert (state.params[name] == value).all(), name
