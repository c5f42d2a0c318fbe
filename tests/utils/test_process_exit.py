"""Entry points that are stopped: while XLA's threads still run a program, and
where Python drops what a signal raises.
"""

import signal
import sys

import pytest

from tests.process import Child

# A callback needs the interpreter's lock each time. Of the arrays that are
# waited for, each is another moment of the computation.
_PROGRAM = """
import os, signal, sys, time
import jax, jax.numpy as jnp
from unifluid_jax.cli import entry_point
from unifluid_jax.utils.errors import UserError

def slow(x):
  time.sleep(0.001)
  return x

@jax.jit
def compute(x):
  def step(x, _):
    x = jnp.tanh(x @ x)
    return jax.pure_callback(slow, x, x), None
  return jax.lax.scan(step, x, None, length=100)[0]

def main():
  results = [jnp.ones((64, 64))]
  for _ in range(40):
    results.append(compute(results[-1]))
  results[{done}].block_until_ready()
  {end}
  time.sleep(60)

entry_point.run(main, resumes=True)
"""


_TERM = 'os.kill(os.getpid(), signal.SIGTERM)'
_STOPPED = 'stopped by SIGTERM; start the same command again to go on'


@pytest.mark.parametrize(
  ('end', 'done', 'code', 'last'),
  [
    (_TERM, 0, 0, _STOPPED),
    (_TERM, 1, 0, _STOPPED),
    (_TERM, 25, 0, _STOPPED),
    ('os.kill(os.getpid(), signal.SIGINT)', 1, 130, ''),
    ('raise UserError("no")', 1, 1, 'error: no'),
    ('raise RuntimeError("no")', 1, 1, 'RuntimeError: no'),
    ('print("done"); sys.exit()', 1, 0, 'done'),
  ],
)
def test_it_ends_without_a_crash(end, done, code, last):
  program = _PROGRAM.format(end=end, done=done)
  with Child([sys.executable, '-c', program], {}, None) as child:
    assert child.wait() == code, child.output
    assert (child.output.splitlines() or [''])[-1] == last
    assert 'Fatal' not in child.output


_IN_DESTRUCTOR = """
import os, signal, time
from unifluid_jax.cli import entry_point

class Slow:
  def __del__(self):
    os.kill(os.getpid(), {number})
    time.sleep(0.01)

def main():
  Slow()
  time.sleep(60)
  print('not stopped')

entry_point.run(main, resumes=True)
"""


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_in_a_destructor_stops_it_too(number, code):
  program = _IN_DESTRUCTOR.format(number=int(number))
  with Child([sys.executable, '-c', program], {}, None) as child:
    assert child.wait() == code, child.output
    assert 'not stopped' not in child.output
    assert 'Traceback' not in child.output
