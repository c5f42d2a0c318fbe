"""Standard output that cannot show everything, and whose reader leaves."""

import signal
import subprocess
import sys

import pytest

from tests.process import ROOT

PROGRAM = """
import sys
from unifluid_jax.cli import output
output.set_up_output()
code = 0
try:
  for _ in range({lines}):
    print('f\\xfcr \\u2192 \\udcff')
    sys.stdout.flush()
except BrokenPipeError:
  assert output.is_output_closed()
else:
  assert not output.is_output_closed()
sys.exit(output.end_output())
"""


def _start(lines: int, encoding: str, stdout) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM.format(lines=lines)],
    cwd=ROOT,
    env={'PYTHONIOENCODING': encoding, 'PYTHONPATH': str(ROOT)},
    stdout=stdout,
    stderr=subprocess.PIPE,
  )


@pytest.mark.parametrize(
  ('encoding', 'line'),
  [
    ('ascii', rb'f\xfcr \u2192 \udcff'),
    ('latin-1', b'f\xfcr \\u2192 \\udcff'),
    ('utf-8', 'für → \\udcff'.encode()),
  ],
)
def test_escapes(encoding, line):
  output, errors = _start(1, encoding, subprocess.PIPE).communicate()
  assert (output.rstrip(b'\n'), errors) == (line, b'')


def test_a_reader_that_leaves():
  child = _start(10**6, 'utf-8', subprocess.PIPE)
  child.stdout.readline()
  child.stdout.close()
  assert child.stderr.read() == b''
  assert child.wait() == 128 + signal.SIGPIPE


def test_a_closed_output():
  program = PROGRAM.format(lines=3).replace('assert', 'pass; #')
  command = ['sh', '-c', 'exec "$0" -c "$1" >&-', sys.executable, program]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
  assert (done.returncode, done.stderr) == (0, b'')
