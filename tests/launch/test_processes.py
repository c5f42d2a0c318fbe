"""Processes that train together: how they start, and how they fail."""

import shutil
import signal

import pytest

from tests import process

pytestmark = pytest.mark.slow


def test_a_missing_process_is_named(tmp_path):
  common = [*process.flags(tmp_path), '--start_timeout=2', '--processes=3']
  alone = f'--coordinator=127.0.0.1:{process.free_port()}'
  coordinator = f'127.0.0.1:{process.free_port()}'
  with process.start('train', *common, alone, '--process_id=2') as waiting:
    message = process.fail(
      'train', *common, f'--coordinator={coordinator}', '--process_id=0'
    )
    assert waiting.wait() == 1
  assert message.startswith(
    f'2 of 3 processes did not arrive at {coordinator} within 2 s; '
    'the missing process ids: 1, 2. '
  )
  assert waiting.output.startswith('error: 1 of 3 processes'), waiting.output
  assert 'ids: 0.' in waiting.output
  assert not (tmp_path / 'config.json').exists()


def test_flags_belong_together(tmp_path):
  flags = [*process.flags(tmp_path), '--coordinator=a', '--processes=2']
  assert process.fail('train', *flags) == '--process_id must be given'


def test_a_mistake_of_all_is_told_by_all(tmp_path):
  together = process.start_together('train', 2, *process.flags(tmp_path))
  for code, output in process.end_together(together):
    assert code == 1
    assert 'train the VAE first' in output.splitlines()[-1]
    assert 'Traceback' not in output


@pytest.mark.parametrize('module', ['train', 'train_vae'])
def test_a_folder_that_is_not_shared(module, started, tmp_path):
  other = tmp_path / 'other'
  shutil.copytree(started, other)  # Also a vocabulary of the same name.
  address = f'--coordinator=127.0.0.1:{process.free_port()}'
  together = [
    process.start(
      module,
      *process.flags(workdir),
      address,
      '--processes=2',
      f'--process_id={index}',
    )
    for index, workdir in enumerate((started, other))
  ]
  ends = process.end_together(together)
  for (code, output), workdir in zip(ends, (started, other), strict=True):
    assert code == 1, output
    assert 'Traceback' not in output
    assert output.splitlines()[-1] == (
      f'error: --workdir={workdir} is not the folder of process 0 for the '
      'processes 1; give all processes the same one, on a disk that all share'
    )
    assert not list(workdir.glob('shared.*'))


def test_all_fail_if_one_is_killed(started):
  flags = [*process.flags(started), '--config.training.steps=1000000']
  together = process.start_together('train', 2, *flags)
  log = started / 'metrics.jsonl'
  together[0].watch(lambda: log.exists() and log.read_text())
  together[1].send(signal.SIGKILL)
  codes = [code for code, _ in process.end_together(together)]
  assert codes[1] == -signal.SIGKILL
  assert codes[0] != 0
