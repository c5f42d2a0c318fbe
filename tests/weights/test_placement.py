"""Arrays land on the shardings that are wanted, each part read once."""

import os
import subprocess
import sys

import pytest

from tests import process
from tests.weights import hub


@pytest.mark.slow
def test_eight_devices(tmp_path):
  hub.save(hub.gemma('gemma 2 GQA'), tmp_path)
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-m', 'tests.weights.sharded', str(tmp_path)],
    cwd=process.ROOT,
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '11 arrays on 8 devices\n', done.stderr
