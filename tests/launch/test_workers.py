"""A training whose batches come from worker processes is stopped or killed."""

import re
import signal

import pytest

from tests import process

pytestmark = pytest.mark.slow


def start(workdir):
  child = process.start(
    'train',
    *process.flags(workdir),
    '--config.data.num_workers=2',
    '--config.training.steps=100000',
    '--config.training.checkpoint.every=100000',
  )
  child.watch(lambda: 'unifluid 3/' in child.output)
  return child


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_to_all_processes_saves_the_last_step(started, number, code):
  """As a machine that goes down sends it, or a terminal."""
  with start(started) as child:
    assert len(child.started()) >= 2
    child.send_all(number)
    assert child.wait() == code, child.output
    assert 'Traceback' not in child.output
    last = int(re.findall(r'^unifluid (\d+)/', child.output, re.MULTILINE)[-1])
    assert process.newest_checkpoint(started) == last
    child.wait_until(lambda: not child.started())


def test_workers_end_with_a_process_that_is_killed(started):
  with start(started) as child:
    assert len(child.started()) >= 2
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.wait_until(lambda: not child.started())
