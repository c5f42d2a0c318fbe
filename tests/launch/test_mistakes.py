"""A user's mistake: exit code 1, one clear message, and nothing is lost."""

import functools
import json
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from tests import process
from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.training.unifluid_run import train_unifluid
from unifluid_jax.utils.errors import UserError
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    (
      '--config.training.stepz=3',
      'the config has no key stepz; Did you mean steps instead of stepz?',
    ),
    (
      '--config.training.steps=3.5',
      'flag --config.training.steps=3.5: invalid literal for int() with base '
      "10: '3.5'",
    ),
    (
      '--config=tests/configs/none.py',
      '--config=tests/configs/none.py does not exist; name a Python file with '
      'get_config, such as experiments/quickstart.py',
    ),
    ('--confg=x', "Unknown command line flag 'confg'. Did you mean: config ?"),
    (
      '--config.data.image_size=20',
      'data.image_size is 20; the VAE and model.patch make one token of 8x8 '
      'pixels, so it must be a multiple of 8',
    ),
  ],
)
def test_a_wrong_flag(flag, message, tmp_path):
  assert process.fail('train', *process.flags(tmp_path), flag) == message
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'data.batch_rows': 3, 'training.grad_accum_steps': 2},
      'data.batch_rows is 3',
    ),
    (
      {'data.packing_windows': 3},
      '4 examples do not split evenly over 3 groups',
    ),
    ({'mesh.fsdp': 2}, 'mesh'),
    (
      {'data.row_capacity.length': 101},
      'data.row_capacity.length is 101, but an example of text_to_image may '
      'take 102',
    ),
    ({'data.sources.captioning.weight': float('nan')}, 'captioning.* is nan;'),
  ],
)
def test_a_refused_start_leaves_the_folder_as_it_was(
  change, message, finished, tmp_path
):
  config = tiny.get_config()
  config.update_from_flattened_dict({'training.steps': 9} | change)
  experiment = build(Experiment, config)
  new = tmp_path / 'new'
  new.mkdir()
  for workdir in (finished, new):
    before = _files(workdir)
    with pytest.raises(UserError, match=message):
      train_unifluid(experiment, workdir)
    assert _files(workdir) == before


def test_a_run_keeps_its_vocabulary(finished):
  before = _files(finished)
  other = '--config.tokenizer.vocab_size=300'
  told = process.fail('train', *process.flags(finished), other)
  assert told.startswith(
    f'{finished / TOKENIZER_FILE} has 320 pieces, and the config asks for '
    'another vocabulary (at most 300 pieces)'
  )
  assert _files(finished) == before


def _files(folder: pathlib.Path) -> set[tuple[str, bytes]]:
  """Names of all files, and what they hold."""
  return {
    (str(path.relative_to(folder)), path.read_bytes())
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_a_vae_of_another_config(finished):
  more = '--config.vae.latent_channels=8'
  told = process.fail('train_vae', *process.flags(finished), more)
  assert 'vae.latent_channels is 2 there and 8 here' in told


def test_a_wrong_key_in_the_file(tmp_path):
  file = tmp_path / 'config.py'
  file.write_text(
    'from tests.configs import tiny\n\n\n'
    'def get_config():\n'
    '  config = tiny.get_config()\n'
    "  config.training['stepz'] = 3\n"
    '  return config\n'
  )
  arguments = process.flags(tmp_path / 'run', str(file))
  message = "config.training has no key 'stepz'; did you mean 'steps'?"
  assert process.fail('train', *arguments) == message


def test_a_config_file_that_is_broken(tmp_path):
  file = tmp_path / 'config.py'
  file.write_text('def get_config():\n  return stepz\n')
  arguments = process.flags(tmp_path / 'run', str(file))
  assert process.fail('train', *arguments) == (
    f"--config: {file}, line 2: NameError: name 'stepz' is not defined"
  )
  assert not (tmp_path / 'run').exists()


def test_what_the_terminal_cannot_print_is_written_and_escaped(
  finished, tmp_path, monkeypatch
):
  monkeypatch.setenv('PYTHONIOENCODING', 'ascii')
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  # As on a machine where nothing else has loaded libtpu.
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  sample = [f'--workdir={finished}', f'--out={tmp_path}/out', '--prompt=kütle']
  output = process.succeed('sample', '--task=generate', *sample)
  assert 'k\\xfctle -> 0000_0.png' in output
  assert 'TPU' not in output
  text = (tmp_path / 'out' / 'samples.json').read_text(encoding='utf-8')
  assert json.loads(text)['samples'][0]['prompt'] == 'kütle'


def test_a_reader_of_the_output_that_leaves(tmp_path):
  show = [sys.executable, '-m', 'unifluid_jax.show', '--source=captioning']
  show += [f'--config={process.CONFIG}', f'--out={tmp_path}/sheet.png']
  with subprocess.Popen(
    show, cwd=process.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as child:
    child.stdout.close()
    told = child.stderr.read().decode()
  assert child.returncode == 128 + signal.SIGPIPE, told
  assert 'Error' not in told
  assert (tmp_path / 'sheet.png').exists()


def test_a_run_that_is_done_stays_what_it_was_trained_by(finished):
  before = _files(finished)
  other = '--config.training.text_weight=0.5'
  told = process.fail('train', *process.flags(finished), other)
  assert told.startswith(
    f'{finished} was trained to its end with another config: '
    'training.text_weight is 0.3 there and 0.5 here'
  )
  assert _files(finished) == before
  same = ['--config.training.log_every=7', '--config.sampling.steps=2']
  process.succeed('train', *process.flags(finished), *same)
  fewer = '--config.training.steps=5'
  told = process.fail('train', *process.flags(finished), fewer)
  assert 'another config: training.steps: 6 -> 5' in told
  more = '--config.training.steps=7'
  told = process.succeed('train', *process.flags(finished), other, more)
  assert 'another config: training.text_weight is 0.3 there and 0.5' in told
  assert len(process.read_losses(finished)) == 7


def test_no_vae(tmp_path):
  message = process.fail('train', *process.flags(tmp_path))
  assert message.endswith(
    'train the VAE first: python -m unifluid_jax.train_vae'
  )


def test_a_checkpoint_of_another_config(finished):
  config = (finished / 'config.json').read_bytes()
  other = '--config.model.gemma.mlp_dim=24'
  message = process.fail('train', *process.flags(finished), other)
  assert 'model.gemma.mlp_dim is 16 there and 24 here' in message
  assert process.newest_checkpoint(finished) == 6
  assert (finished / 'config.json').read_bytes() == config


def _damage(checkpoint: pathlib.Path) -> None:
  """Leaves the first bytes of every file of arrays, whosever they are."""
  for path in checkpoint.rglob('d/*'):
    path.write_bytes(path.read_bytes()[:100])


def test_a_damaged_checkpoint(finished, tmp_path):
  uninterrupted = process.read_losses(finished)
  newest = finished / 'checkpoints' / '6'
  _damage(newest)
  sample = ['--task=generate', '--prompt=fox', f'--workdir={finished}']
  told = f'checkpoint {newest} is damaged ('
  output = process.succeed('sample', *sample, f'--out={tmp_path}/out')
  assert told in output and 'step 4 is used instead' in output
  assert newest.exists()
  output = process.succeed('train', *process.flags(finished))
  assert output.count(told) == 1
  assert f'kept in {finished}/checkpoints.damaged.6' in output
  assert 'resumes from step 4' in output
  assert process.read_losses(finished) == uninterrupted
  for step in (4, 6):
    _damage(finished / 'checkpoints' / str(step))
  for message in (
    process.fail('sample', *sample, f'--out={tmp_path}/none'),
    process.fail('train', *process.flags(finished)),
  ):
    assert message.startswith(
      f'{finished}/checkpoints holds no checkpoint that can be used'
    )
    assert 'step 4 (' in message and 'step 6 (' in message


def test_a_damaged_vae(started):
  vae = started / 'vae' / 'final' / '4'
  _damage(vae)
  message = process.fail('train', *process.flags(started))
  assert message.startswith(
    f'{vae.parent} holds no checkpoint that can be used'
  )
  output = process.succeed('train_vae', *process.flags(started))
  assert f'checkpoint {vae} is damaged (' in output
  process.succeed('train', *process.flags(started))


def _full_beyond(size: int) -> Callable[[], None]:
  """What makes writing a file of more bytes an error, as a full disk does."""
  return functools.partial(
    resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)
  )


def test_no_room_for_a_checkpoint(finished):
  before = process.newest_checkpoint(finished)
  arguments = [*process.flags(finished), '--config.training.steps=9']
  full = _full_beyond(20_000)  # enough for a log, not for a checkpoint
  message = process.fail('train', *arguments, before=full)
  assert message.startswith('cannot write a checkpoint to')
  assert message.endswith(
    'File too large); make room there and start again: the checkpoints before '
    'are unharmed'
  )
  assert process.newest_checkpoint(finished) == before
  output = process.succeed('train', *arguments)
  assert f'resumes from step {before}' in output
  assert len(process.read_losses(finished)) == 9


def test_no_room_for_a_small_file(started, tmp_path):
  arguments = [
    *process.flags(started),
    '--config.training.steps=20',
    '--config.training.checkpoint.every=20',
  ]
  config = started / 'config.json'
  before = config.read_bytes()

  def fail(room):
    return process.fail('train', *arguments, before=_full_beyond(room))

  def told(file):
    return (
      f'cannot write {started / file}: File too large; make room and start the '
      'same command again'
    )

  assert fail(len(before) - 1) == told('config.json')
  assert config.read_bytes() == before
  assert fail(len(before) + 200) == told('metrics.jsonl')
  process.succeed('train', *arguments)
  assert len(process.read_losses(started)) == 20

  out = tmp_path / 'out'
  sample = ['--task=generate', '--prompt=fox', f'--workdir={started}']
  message = process.fail(
    'sample', *sample, f'--out={out}', before=_full_beyond(100)
  )
  assert message == f'--out={out} cannot be written: [Errno 27] File too large'


def test_a_loss_that_is_not_finite(started):
  rate = '--config.optimizer.learning_rate=1e30'
  message = process.fail('train', *process.flags(started), rate)
  assert 'the loss or its gradient was not finite at step 2' in message


def _folder(path: pathlib.Path, **changes: str) -> str:
  """Makes a folder source; `changes` go into its last record."""
  path.mkdir()
  rng = np.random.default_rng(0)
  records = [{'image': f'{i}.png', 'text': f'number {i}'} for i in range(12)]
  for record in records:
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path / record['image'])
  records[-1] |= changes
  lines = [json.dumps(record) + '\n' for record in records]
  (path / 'records.jsonl').write_text(''.join(lines))
  return f'{process.CONFIG}:{path / "records.jsonl"}'


def test_a_missing_image(started, tmp_path):
  config = _folder(tmp_path / 'images', image='none.png')
  message = process.fail('train', *process.flags(started, config))
  assert message.endswith(
    f'records.jsonl, line 12: the image {tmp_path}/images/none.png does not '
    'exist'
  )


def test_a_text_that_is_too_long(started, tmp_path):
  config = _folder(tmp_path / 'images', text='very long ' * 20)
  message = process.fail('train', *process.flags(started, config))
  place = f'{tmp_path}/images/records.jsonl, line 12'
  assert message.startswith(f"{place}: the text 'very long very long")
  assert 'does not fit; set data.max_text = ' in message


def test_an_image_that_turns_out_corrupt(started, tmp_path):
  config = _folder(tmp_path / 'images')
  image = tmp_path / 'images' / '11.png'
  whole = image.read_bytes()
  image.write_bytes(whole[:60])
  arguments = [
    *process.flags(started, config),
    '--config.training.steps=9',
    '--config.training.checkpoint.every=100',
    # The probe reads its images before the first step.
    '--config.training.probe_every=0',
  ]
  broken = f'line 12: {image} is not a readable image'
  assert broken in process.fail('train', *arguments)
  # The steps before it are kept.
  done = len(process.read_losses(started))
  assert process.newest_checkpoint(started) == done > 0
  image.write_bytes(whole)
  process.succeed('train', *arguments)
  assert len(process.read_losses(started)) == 9


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ['--task=caption', '--prompt=fox'],
      '--task=caption takes no --prompt; it takes --image, --max_tokens, '
      '--temperature, --top_k, --top_p',
    ),
    (['--task=edit', '--image=a.png'], '--task=edit needs --instruction'),
    (['--prompt=fox'], '--task must be given'),
    (
      ['--task=caption', '--image=none.png'],
      '--image=none.png cannot be read: No such file or directory',
    ),
    (
      ['--task=caption', '--image=/dev/zero'],
      '--image=/dev/zero is not a regular file; name the file of an image',
    ),
    (
      ['--task=caption', '--image=setup.py'],
      '--image=setup.py is not a readable image',
    ),
    (
      ['--task=generate', '--prompt=fox', '--steps=99'],
      '99 decoding steps; an image of 4 tokens takes 1 to 4',
    ),
    (
      ['--task=generate', '--prompt=' + 'fox ' * 99],
      'more than max_text = 96; shorten it or raise max_text',
    ),
  ],
)
def test_a_wrong_wish(arguments, message, finished, tmp_path):
  out = tmp_path / 'out'
  arguments = [f'--workdir={finished}', f'--out={out}', *arguments]
  assert message in process.fail('sample', *arguments)
  assert not out.exists()


@pytest.mark.parametrize(
  ('out', 'reason'),
  [
    ('file', 'File exists'),
    ('file/samples', 'Not a directory'),
    ('a' * 300, 'File name too long'),
  ],
)
def test_a_place_for_samples_is_tried_before_the_work(out, reason, tmp_path):
  (tmp_path / 'file').touch()
  out = tmp_path / out
  sample = ['--task=generate', '--prompt=fox', f'--workdir={tmp_path}/none']
  assert process.fail('sample', *sample, f'--out={out}') == (
    f'--out={out} cannot be written: {reason}; name a folder that can be '
    'written'
  )


@pytest.mark.parametrize(
  ('out', 'reason'),
  [
    ('none/a.png', 'cannot be written: No such file'),
    ('folder.png', 'cannot be written: Is a directory'),
    ('a.txt', 'is not the name of an image file'),
  ],
)
def test_a_place_for_a_sheet_is_tried_before_the_work(out, reason, tmp_path):
  (tmp_path / 'folder.png').mkdir()
  out = tmp_path / out
  show = [f'--config={process.CONFIG}', '--source=none', f'--out={out}']
  assert f'--out={out} {reason}' in process.fail('show', *show)


def test_no_run_to_sample_from(tmp_path):
  message = process.fail(
    'sample', f'--workdir={tmp_path}', '--task=generate', '--prompt=fox'
  )
  assert message.endswith('must be the --workdir of a training run')
