"""Every config file builds, and its small variant trains."""

import dataclasses
import importlib
import pathlib
import re
import shutil

import numpy as np
import pytest

from experiments import arguments
from tests.configs import tiny
from tests.vocabulary import make_tokenizer
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import UNKNOWN_BOI, make_unifluid_spec
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.layout import lay_out
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.training import unifluid_run, vae_run, vae_state
from unifluid_jax.training.metrics import read_log
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import initial_parameters, restore
from unifluid_jax.workdir import run_config

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
HELPERS = ('__init__', 'arguments', 'picture', 'tiny')
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
OWN = 'path=a=b/c.jsonl,size=64,steps=5'


def get_config(name, arg):
  return importlib.import_module(f'experiments.{name}').get_config(arg)


@pytest.mark.parametrize(('name', 'arg'), VARIANTS)
def test_a_config_builds(name, arg):
  experiment = build(Experiment, get_config(name, arg))
  assert experiment.token_dim and experiment.grid


@pytest.mark.parametrize('arg', [OWN, f'{OWN},tiny'])
def test_ones_own_images_are_those_that_are_named(arg):
  experiment = build(Experiment, get_config('own_images', arg))
  sources = experiment.data.sources
  assert {source.task for source in sources.values()} == {
    'text_to_image',
    'captioning',
  }
  every = (*sources.values(), *experiment.vae_training.sources.values())
  for source in every:
    assert (source.kind, source.path) == ('folder', 'a=b/c.jsonl')
    assert source.split == 'train'
  assert experiment.data.heldout == 0.1
  if 'tiny' not in arg:
    assert (experiment.data.image_size, experiment.training.steps) == (64, 5)


@pytest.mark.parametrize('name', NAMES)
def test_a_config_is_new_at_each_call(name):
  first = get_config(name, '')
  first.data.batch_rows = -1
  first.training.text_weight = -1.0
  again = get_config(name, '')
  assert again.data.batch_rows != -1 and again.training.text_weight != -1.0


@pytest.mark.parametrize(
  ('name', 'arg', 'message'),
  [
    ('ablation_order', 'color=red', "'color=red' is unknown"),
    (
      'ablation_order',
      'order=rastr',
      "order is 'rastr'; it must be one of ran",
    ),
    (
      'ablation_language_model',
      'start=scrach',
      "start is 'scrach'; it must be",
    ),
    ('ablation_lambda', 'text_weight=much', "is 'much'; it must be like 1.0"),
    ('paligemma', 'version=3', "version is '3'; it must be one of 1, 2"),
    ('own_images', 'size=33', 'size is 33; it must be a multiple of 8'),
    ('own_images', 'steps=many', "steps is 'many'; it must be like 3000"),
  ],
)
def test_a_wrong_argument_is_refused(name, arg, message):
  with pytest.raises(UserError, match=message):
    get_config(name, arg)


@pytest.mark.parametrize('name', NAMES)
def test_flags_can_set_every_key(name):
  """What a config holds can be set: each key that its experiment has."""
  config = get_config(name, '')
  held = keys(config.to_dict())
  assert len(held) > 100
  assert keys(to_dict(build(Experiment, config))) == held


def keys(section, path=''):
  """The dotted names of a section's values."""
  if not isinstance(section, dict) or not section:
    return {path}
  return set().union(*(keys(v, f'{path}.{k}') for k, v in section.items()))


@pytest.mark.slow
@pytest.mark.parametrize(
  'config',
  [get_config('quickstart', ''), tiny.get_config()],
  ids=['quickstart', 'tests/configs/tiny'],
)
def test_no_embedded_text_is_too_long(config, tmp_path):
  experiment = build(Experiment, config)
  tokenizer = make_tokenizer(experiment, tmp_path)
  layout, rng = experiment.layout(), np.random.default_rng(1)
  for task in make_tasks(experiment, experiment.data.sources).values():
    for i in rng.integers(len(task), size=500):
      lay_out(task.build(task[int(i)], rng, augment=True), tokenizer, layout)


def test_published_sizes():
  """Parameters of the paper's recipes, without making them."""
  for name, gemma in (('unifluid_0_7b', 743.9e6), ('unifluid_2b', 2024.5e6)):
    experiment = build(Experiment, get_config(name, ''))
    spec = make_unifluid_spec(experiment, UNKNOWN_BOI)
    count = sum(
      shape.size
      for key, shape in spec.abstract_parameters.items()
      if key.startswith('gemma/') and key != 'gemma/embedding'
    )
    assert abs(count - gemma) < 0.1e6


@pytest.mark.parametrize('name', NAMES)
def test_all_that_writes_images_is_treated_alike(name):
  config = get_config(name, 'tiny')
  config.model.update(decoding='masked', source_tokens=True)
  experiment = build(Experiment, config)
  names = make_unifluid_spec(experiment, UNKNOWN_BOI).logical_axes
  new, factors = experiment.init.new, experiment.optimizer.lr_multipliers
  treated = {
    (
      any(re.search(pattern, name) for pattern in new),
      next((f for p, f in factors.items() if re.search(p, name)), 1.0),
    )
    for name in names
    if re.match('head|token|mask|source|.*_positions$', name)
  }
  assert {'mask_token', 'source_in', 'known_positions'} <= {*names}
  assert len(treated) == 1


@pytest.fixture(scope='module')
def started(tmp_path_factory):
  """The small variants' VAE and a vocabulary, the same for all."""
  workdir = tmp_path_factory.mktemp('started')
  experiment = build(Experiment, get_config('quickstart', 'tiny'))
  vae_run.train_vae(experiment, workdir / 'vae')
  make_tokenizer(experiment, workdir)
  return workdir


@pytest.fixture(scope='module')
def language_model(tmp_path_factory, started):
  """A run for `start=pretrained` to start from."""
  workdir = tmp_path_factory.mktemp('understanding')
  run('ablation_tasks', 'tasks=understanding,tiny', workdir, started)
  return workdir


def run(name, arg, workdir, started):
  shutil.copytree(started, workdir, dirs_exist_ok=True)
  experiment = build(Experiment, get_config(name, arg))
  return unifluid_run.train_unifluid(experiment, workdir)


# One of each kind; the others are long.
OF_EACH_KIND = ('quickstart', 'own_images', 'unifluid_2b')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'arg'),
  [
    pytest.param(
      *variant, marks=[] if variant[0] in OF_EACH_KIND else [pytest.mark.long]
    )
    for variant in VARIANTS
    if variant != ('ablation_language_model', '')
  ],
)
def test_a_small_variant_trains_two_steps(name, arg, tmp_path, started):
  run(name, f'{arg},tiny', tmp_path, started)
  log = read_log(tmp_path)
  assert [line['step'] for line in log] == [1, 2]


@pytest.mark.slow
def test_a_run_starts_from_another_ones_decoder(
  tmp_path, started, language_model
):
  arg = f'start=pretrained,source={language_model},tiny'
  config = get_config('ablation_language_model', arg)
  experiment = build(Experiment, config)
  tokenizer = make_tokenizer(experiment, tmp_path)
  spec = make_unifluid_spec(experiment, tokenizer.boi_id)
  taken = initial_parameters.load_start(experiment, spec, {})
  weights = restore.restore_ema_weights(
    run_config.read_experiment(language_model), tokenizer, language_model
  )
  other = weights.unifluid
  assert taken
  for name, value in taken.items():
    assert name.startswith('gemma/')
    assert (value == other[name]).all()
  config.optimizer.learning_rate = 0.0
  shutil.copytree(started / 'vae', tmp_path / 'vae')
  state = unifluid_run.train_unifluid(build(Experiment, config), tmp_path)
  for name, value in taken.items():
    assert (state.params[name] == value).all(), name


@pytest.mark.slow
@pytest.mark.parametrize('pattern', ['^head/input', '^token_in$', 'source_in'])
def test_what_knows_a_vaes_tokens_comes_with_that_vae(
  pattern, started, language_model
):
  arg = f'start=pretrained,source={language_model},tiny'
  config = get_config('ablation_language_model', arg)
  config.init.parameters = ('^gemma/', pattern)
  experiment = build(Experiment, config)
  spec = make_unifluid_spec(experiment, UNKNOWN_BOI)
  vae = vae_state.load_vae(experiment, started / 'vae')
  taken = initial_parameters.load_start(experiment, spec, vae)
  assert any(re.search(pattern, name) for name in taken)
  name = max(vae)
  other = vae | {name: vae[name] + 1e-3}
  for wrong in (other, {}):
    with pytest.raises(UserError, match='was trained on another VAE'):
      initial_parameters.load_start(experiment, spec, wrong)


def test_edits_are_sampled_as_images_are_until_they_are_told_otherwise():
  config = get_config('unifluid_2b_sample', '')
  assert config.edit_sampling.steps == 64
  config.sampling.update(steps=32, temperature=0.9)
  config.sampling.guidance.scale = 5.0
  config.edit_sampling.solver = 'ancestral'
  for again in (config, arguments.finish(config, is_tiny=False)):
    again.sampling.update(head_steps=7)
    found = build(Experiment, again)
    assert found.sampling.solver == 'dpm_solver'
    assert found.editing == dataclasses.replace(
      found.sampling, guidance=Guidance(), solver='ancestral'
    )
