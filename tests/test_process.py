"""Children of the tests: their output is told, and none is left behind."""

import os
import signal
import sys
import time

import pytest

from tests import process


def child(code):
  return process.Child([sys.executable, '-uc', code], {}, None)


def is_alive(pid):
  """Whether a process runs; one that has ended but has no heir to say so is
  no orphan."""
  try:
    with open(f'/proc/{pid}/stat') as file:
      return file.read().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


_FORK = (
  'import subprocess, sys, time\n'
  'code = "import time; time.sleep(99)"\n'
  'x = subprocess.Popen([sys.executable, "-c", code])\n'
  'print(x.pid)\n'
  'time.sleep(99)\n'
)


def test_a_hanging_child_tells_and_leaves_nothing(monkeypatch):
  monkeypatch.setattr(process, 'LIMIT', 3.0)
  with child(_FORK) as hanging:
    with pytest.raises(AssertionError, match='still running after 3.0 s') as e:
      hanging.wait()
    grandchild = int(str(e.value).split()[-1])
  while is_alive(grandchild):  # The kernel takes its time.
    time.sleep(0.01)
  with pytest.raises(ProcessLookupError):
    os.kill(hanging._process.pid, 0)


def test_a_failing_test_leaves_nothing():
  with pytest.raises(KeyError), child(_FORK) as running:
    running.watch(lambda: '\n' in running.output)
    grandchild = int(running.output)
    assert is_alive(grandchild)
    raise KeyError
  while is_alive(grandchild):
    time.sleep(0.01)


def test_a_child_that_ends_too_early_tells_why():
  with child('raise SystemExit("no such luck")') as ending:
    with pytest.raises(AssertionError, match='ended with 1:\nno such luck'):
      ending.watch(lambda: False)
    assert ending.wait() == 1


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux has the means')
def test_tests_that_are_killed_leave_nothing():
  code = (
    'import sys, time\n'
    'from tests import process\n'
    'inner = [sys.executable, "-c", "import time; time.sleep(99)"]\n'
    'print(process.Child(inner, {}, None)._process.pid)\n'
    'time.sleep(99)\n'
  )
  with child(code) as tests:
    tests.watch(lambda: '\n' in tests.output)
    inner = int(tests.output)
    assert is_alive(inner)
    tests.send(signal.SIGKILL)
    while is_alive(inner):
      time.sleep(0.01)
