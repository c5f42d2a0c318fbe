"""Before any work: all problems in one error, and nothing is written."""

import dataclasses

import pytest

from tests.configs import tiny
from tests.training.folders import own_config, write_lines
from tests.vocabulary import make_tokenizer
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.training.preflight import (
  check_config,
  check_plan,
  check_start,
)
from unifluid_jax.training.unifluid_run import train_unifluid
from unifluid_jax.utils.errors import UserError, UserErrors
from unifluid_jax.workdir.run_config import write_config


def refused(config, workdir, **options) -> list[str]:
  """The messages of a refused start, which must leave the folder empty."""
  workdir.mkdir(exist_ok=True)
  options = {'trains_vae': True} | options
  with pytest.raises(UserError) as error:
    check_start(build(Experiment, config), workdir, **options)
  assert not list(workdir.iterdir())
  several = isinstance(error.value, UserErrors)
  errors = error.value.errors if several else [error.value]
  assert all(str(one).split('\n')[0] in str(error.value) for one in errors)
  return [str(one) for one in errors]


def has(messages, *parts) -> bool:
  """Whether each part is in a message of its own, and there are no others."""
  return len(messages) == len(parts) and all(
    sum(part in message for message in messages) == 1 for part in parts
  )


def test_a_config_that_is_right_passes(tmp_path):
  start = check_start(
    build(Experiment, tiny.get_config()), tmp_path, trains_vae=True
  )
  assert {*start.tasks} == {'text_to_image', 'captioning'}
  assert [*start.vae_tasks] == ['picture']
  assert start.tokenizer.vocab_size == 320
  assert not list(tmp_path.iterdir())


def test_problems_of_all_kinds_are_told_at_once(tmp_path):
  config = tiny.get_config()
  config.data.batch_rows = 3
  config.data.packing_windows = 2
  config.mesh.fsdp = 64
  config.data.row_capacity.length = 50
  config.data.sources.captioning.weight = float('nan')
  config.data.sources.text_to_image.concepts = 'quikstart'
  config.optimizer.lr_multipliers = {'^haed/': 3.0}
  config.vae_training.optimizer.lr_multipliers = {'^bottleneck$': 2.0}
  config.vae_training.sources.picture.task = 'captioning'
  config.init.update(
    frozen=('^encodr/',), backbone='no/gemma', vae='', workdir=''
  )
  config.training.profile = (10, 12)
  messages = refused(config, tmp_path / 'run')
  assert has(
    messages,
    '3 rows do not split evenly over 2 groups',
    'mesh is data 1, fsdp 64',
    "the weight of task 'captioning' is nan",
    "unknown concept set 'quikstart'",
    'data.row_capacity.length is 50, but',
    '^haed/',
    '^bottleneck$',
    "the task 'captioning' generates texts",
    '^encodr/',
    'no/gemma',
    'training.profile is [10, 12]',
  ), '\n'.join(messages)


def test_sections_are_checked_together():
  config = tiny.get_config()
  config.data.packing_windows = 0
  config.training.diffusion_batch_mul = 0
  with pytest.raises(UserErrors) as error:
    build(Experiment, config)
  # A config is checked across its sections when each of them is right.
  errors = [*map(str, error.value.errors)]
  assert has(
    errors, 'data.packing_windows is 0', 'training.diffusion_batch_mul is 0'
  )
  config.data.packing_windows = config.training.diffusion_batch_mul = 1
  config.edit_sampling.update(steps=99, solver='ancestrl')
  config.tokenizer.vocab_size = 321
  with pytest.raises(UserErrors) as error:
    build(Experiment, config)
  assert has(
    [*map(str, error.value.errors)],
    'edit_sampling: 99 decoding steps',
    "edit_sampling: diffusion solver 'ancestrl'",
    'tokenizer.vocab_size is 321',
  )


def test_long_captions_are_told_before_the_vae_is_trained(tmp_path):
  texts = ['short', *('1' * (100 + i) for i in range(25))]
  config = own_config(write_lines(tmp_path, texts))
  (message,) = refused(config, tmp_path / 'run')
  title, *lines = message.splitlines()
  assert title.startswith('25 records do not fit; set data.max_text = ')
  assert len(lines) == 11
  assert lines[0].startswith(f'  {tmp_path}/captions.jsonl, line 2 needs ')
  assert lines[-1] == '  and 15 more'
  for key in (
    'data.max_text',
    'data.row_capacity.length',
    'data.row_capacity.text_targets',
  ):
    value = int(title.split(f'{key} = ')[1].split()[0])
    section = config.data.row_capacity if 'row_capacity' in key else config.data
    section[key.rpartition('.')[2]] = value
  start = check_start(
    build(Experiment, config), tmp_path / 'run', trains_vae=True
  )
  assert len(start.tasks['draw']) == 26


def test_the_mended_folder_is_taken(tmp_path):
  """No vocabulary of the refused texts stays to count the mended ones by."""
  config = own_config(write_lines(tmp_path, ['1' * 150] * 9))
  refused(config, tmp_path / 'run')
  write_lines(tmp_path, ['fox'] * 9)
  check_start(build(Experiment, config), tmp_path / 'run', trains_vae=True)


def test_a_source_is_opened_once_and_its_problem_told_once(tmp_path):
  file = write_lines(tmp_path, ['a', 'b'])
  file.write_text(file.read_text().replace('red.png', 'none.png', 1))
  messages = refused(own_config(file), tmp_path / 'run')
  assert has(messages, 'line 1: the image')
  write_lines(tmp_path, ['a', 'b'])
  start = check_start(
    build(Experiment, own_config(file)), tmp_path / 'run', trains_vae=True
  )
  assert start.tasks['draw'] is start.vae_tasks['picture']


def test_the_vae_must_be_there_unless_it_is_trained_first(tmp_path):
  config = tiny.get_config()
  messages = refused(config, tmp_path / 'run', trains_vae=False)
  assert has(messages, 'train the VAE first')
  config.vae_training.sources.picture.concepts = 'nothing'  # Not read again.
  assert refused(config, tmp_path / 'run', trains_vae=False) == messages


def test_a_vae_learns_from_images_only(tmp_path):
  config = own_config(write_lines(tmp_path, ['a']))
  config.vae_training.sources.picture.task = 'captioning'
  told = "vae_training.sources.picture: the task 'captioning' generates texts"
  assert has(refused(config, tmp_path / 'run'), told)


def test_more_checks_are_made_with_the_others(tmp_path):
  def evaluation():
    raise UserError('nothing to measure')

  config = tiny.get_config()
  config.data.packing_windows = 3
  messages = refused(config, tmp_path / 'run', also=[evaluation])
  assert has(messages, 'nothing to measure', '4 examples', '2 rows')


@pytest.mark.parametrize('check', [check_plan, check_config])
def test_a_plan_needs_no_files_but_checks_those_that_are_there(
  check, tmp_path, caplog
):
  file = write_lines(tmp_path, ['1' * 150])
  config = own_config(file)
  config.init.update(backbone='no/gemma', new=('.*',))
  experiment = build(Experiment, config)
  with pytest.raises(UserError, match='does not fit; set data.max_text'):
    check(experiment)
  write_lines(tmp_path, ['short'])
  check(experiment)
  assert 'does not have no/gemma' in caplog.text
  file.unlink()
  if check is check_config:
    with pytest.raises(UserError, match='cannot read'):
      check(experiment)
  else:
    check(experiment)
    assert f'are not checked: draw ({file}), read ({file})' in caplog.text


def test_a_damaged_file_that_init_names_is_told(tmp_path):
  (tmp_path / 'gemma').mkdir()
  (tmp_path / 'gemma' / 'model.safetensors').write_bytes(b'nothing')
  config = tiny.get_config()
  config.init.update(backbone=str(tmp_path / 'gemma'))
  (message,) = refused(config, tmp_path / 'run')
  assert 'model.safetensors' in message


def test_a_run_to_start_from_is_looked_at(tmp_path):
  other = build(Experiment, tiny.get_config())
  source = tmp_path / 'source'
  write_config(other, source)
  make_tokenizer(other, source)
  config = tiny.get_config()
  config.init.update(workdir=str(source), new=('.*',))
  (message,) = refused(config, tmp_path / 'run')
  assert f'{source}/checkpoints holds no complete checkpoint' in message


def test_a_refused_training_writes_nothing(tmp_path):
  experiment = build(Experiment, tiny.get_config())
  workdir = tmp_path / 'run'
  workdir.mkdir()
  with pytest.raises(UserError, match='train the VAE first'):
    train_unifluid(experiment, workdir)
  vocabulary = tmp_path / 'tokenizer.model'
  vocabulary.write_bytes(b'nothing')
  tokenizer = dataclasses.replace(experiment.tokenizer, path=str(vocabulary))
  other = dataclasses.replace(experiment, tokenizer=tokenizer)
  with pytest.raises(UserErrors, match='is not a SentencePiece model'):
    train_unifluid(other, workdir)
  assert not list(workdir.iterdir())
