"""A folder that a run holds is refused to others, and is free after it."""

import subprocess
import sys

import pytest

from tests import process
from unifluid_jax.utils.errors import UserError
from unifluid_jax.workdir.workdir_lock import workdir_lock

_HOLD = """
import pathlib, sys, time
from unifluid_jax.workdir.workdir_lock import workdir_lock
with workdir_lock(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


def test_a_folder_is_free_after_its_run(tmp_path):
  with pytest.raises(ZeroDivisionError), workdir_lock(tmp_path):
    with pytest.raises(UserError, match='in use'), workdir_lock(tmp_path):
      pass
    raise ZeroDivisionError
  with workdir_lock(tmp_path), workdir_lock(tmp_path / '..'):
    assert not any(tmp_path.iterdir())


def test_a_folder_is_free_after_a_kill(tmp_path):
  command = [sys.executable, '-c', _HOLD, str(tmp_path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
    try:
      assert holder.stdout.readline() == 'held\n'
      with pytest.raises(UserError, match='in use'), workdir_lock(tmp_path):
        pass
    finally:
      holder.kill()
  with workdir_lock(tmp_path):
    pass


@pytest.mark.slow
@pytest.mark.parametrize('stage', ['train', 'quickstart'])
def test_a_second_training_is_refused(stage, tmp_path):
  with workdir_lock(tmp_path):
    message = process.fail(stage, *process.flags(tmp_path))
  assert message.startswith(f'--workdir={tmp_path} is in use')
  assert not any(tmp_path.iterdir())
