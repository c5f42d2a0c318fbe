"""Where the wall time goes."""

import subprocess
import sys
import time

import pytest

from unifluid_jax.utils.goodput import PARTS, Goodput, share


class Clock:
  """A clock that is moved by hand."""

  def __init__(self):
    self.time = 100.0

  def __call__(self) -> float:
    return self.time


def test_each_second_belongs_to_one_part():
  clock = Clock()
  account = Goodput(age=7.0, now=clock)
  with account.spend('train'):
    clock.time += 60
    with account.spend('save'):
      clock.time += 5
      with account.spend('restore'):
        clock.time += 1
      clock.time += 2
    clock.time += 20
    with pytest.raises(KeyError), account.spend('data_wait'):
      clock.time += 2
      raise KeyError
  clock.time += 3
  assert account.seconds == {
    'train': 80.0,
    'compile': 0.0,
    'restore': 1.0,
    'data_wait': 2.0,
    'save': 7.0,
    'evaluation': 0.0,
    'start': 10.0,
  }
  assert share(account.seconds) == 0.8
  assert str(account) == (
    '80% of 1:40 in training steps; lost: compile 0:00, restore 0:01, data '
    'wait 0:02, save 0:07, evaluation 0:00, start 0:10'
  )


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells the age')
def test_a_process_began_before_it_was_imported():
  code = (
    'import time; time.sleep(1.5)\n'
    'from unifluid_jax.utils.goodput import Goodput\n'
    'print(Goodput.of_process().seconds["start"])'
  )
  began = time.monotonic()
  command = [sys.executable, '-c', code]
  told = float(subprocess.run(command, check=True, capture_output=True).stdout)
  # Ticks of the kernel's clock are 10 ms.
  assert 1.4 < told < time.monotonic() - began + 0.1
  assert set(PARTS) == set(Goodput().seconds)
