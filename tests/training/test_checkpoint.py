"""Checkpoints: complete or absent, and what is kept of them."""

import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from unifluid_jax.errors import UserError
from unifluid_jax.training import checkpoint
from unifluid_jax.training.checkpoint import Checkpoints, abstract

# TensorStore's threads report to a loop that Orbax has closed after an error.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

IDENTITY = {'seed': 0, 'model': {'width': 4}}
DAMAGES = {
  'missing': lambda file: file.unlink(),
  'truncated': lambda file: file.write_bytes(
    file.read_bytes()[: file.stat().st_size // 2]
  ),
  'empty': lambda file: file.write_bytes(b''),
}


def state(step: int) -> dict[str, jax.Array]:
  """A state with a large array, a small one and a number."""
  key = jax.random.key(step)
  return {
    'large': jax.random.normal(key, (50, 40)),
    'small': jnp.arange(3.0) + step,
    'step': jnp.int32(step),
  }


def restore(folder: pathlib.Path, identity=IDENTITY) -> dict[str, jax.Array]:
  shardings = jax.tree.map(lambda x: x.sharding, state(0))
  return Checkpoints(folder).restore(abstract(state(0), shardings), identity)


def is_state(found: dict[str, jax.Array], step: int) -> bool:
  return all((found[name] == x).all() for name, x in state(step).items())


def save(folder: pathlib.Path, losses: dict[int, float], keep: int = 2) -> None:
  with Checkpoints(folder, keep) as checkpoints:
    for step, loss in losses.items():
      checkpoints.save(step, state(step), IDENTITY, loss)


def steps(folder: pathlib.Path) -> list[int]:
  return sorted(int(path.name) for path in folder.iterdir())


@pytest.fixture(scope='module')
def _saved(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('saved')
  save(folder, {2: 1.0, 4: 0.5})
  return folder


@pytest.fixture
def saved(_saved, tmp_path) -> pathlib.Path:
  """A folder with the steps 2 and 4."""
  return shutil.copytree(_saved, tmp_path / 'saved')


def test_the_newest_is_restored(saved):
  assert is_state(restore(saved), 4)


def test_another_config(saved):
  with pytest.raises(UserError, match='model.width is 4 there and 8 here'):
    restore(saved, {'seed': 0, 'model': {'width': 8}})


def test_no_checkpoint(tmp_path):
  folder = tmp_path / 'none'
  with pytest.raises(UserError, match='none holds no complete checkpoint'):
    restore(folder)
  assert not folder.exists()


def test_all_processes_find_the_same(saved, monkeypatch):
  """Of a shared disk that shows another machine's files late."""
  answers = [[2, 1], [2, -1], [2, 2], [2, 1]]
  monkeypatch.setattr(checkpoint, '_PATIENCE', 3)
  monkeypatch.setattr(checkpoint.time, 'sleep', lambda seconds: None)
  monkeypatch.setattr(
    checkpoint.processes, 'gather', lambda step: answers.pop(0)
  )
  Checkpoints(saved).agree()
  assert answers == [[2, 1]]
  answers += [[2, -1], [2, -1]]
  told = 'not the same to all processes: process 0 step 2, process 1 none'
  with pytest.raises(UserError, match=told):
    Checkpoints(saved).agree()


def test_keeps_the_newest_and_the_best(tmp_path):
  save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: float('inf')})
  assert steps(tmp_path) == [2, 3, 4]
  # Also across restarts: the losses of before are remembered.
  save(tmp_path, {5: 3.0})
  save(tmp_path, {6: 2.0})
  assert steps(tmp_path) == [2, 5, 6]
  save(tmp_path, {7: 0.5, 8: 0.7})
  assert steps(tmp_path) == [7, 8]


def test_a_save_that_was_killed(saved, caplog):
  partial = saved / '6.orbax-checkpoint-tmp'
  aside = saved.with_name('saved.partial.6')
  shutil.copytree(saved / '4', partial)
  (partial / 'state' / 'manifest.ocdbt').unlink()
  assert is_state(restore(saved), 4)
  assert partial.exists()  # Another process may be writing it.
  with caplog.at_level('WARNING'):
    save(saved, {8: 0.4})
  assert steps(saved) == [4, 8]
  assert (aside / 'state').exists()
  assert not (aside / 'state' / 'manifest.ocdbt').exists()
  (line,) = [r.getMessage() for r in caplog.records if 'cut off' in r.msg]
  assert line.startswith('the save of step 6 was cut off')
  assert f'is kept in {aside} until' in line
  # The next one takes its place, and a start without one leaves it alone.
  save(saved, {9: 0.3})
  assert aside.exists()
  shutil.copytree(saved / '9', saved / '12.orbax-checkpoint-tmp')
  save(saved, {10: 0.2})
  assert not aside.exists() and saved.with_name('saved.partial.12').exists()


def test_a_failed_save_is_told_before_the_next(tmp_path, monkeypatch):
  def fail(*arguments, **options):
    raise OSError(28, 'No space left on device')

  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.check()
    checkpoints.save(1, state(1), IDENTITY, 1.0)
    checkpoints.wait()
    checkpoints.check()
    monkeypatch.setattr(ocp.CheckpointManager, '_finalize_checkpoint', fail)
    checkpoints.save(2, state(2), IDENTITY, 1.0)
    with pytest.raises(UserError, match='cannot write .* No space left'):
      while True:
        checkpoints.check()


def test_a_folder_that_was_moved_away(saved):
  for name in ('4.damaged', 'old_4', '4 (copy)'):
    shutil.copytree(saved / '4', saved / name)
  shutil.rmtree(saved / '4')
  assert is_state(restore(saved), 2)
  save(saved, {4: 0.4})
  assert is_state(restore(saved), 4)


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file(damage, saved, tmp_path):
  """Each is told, or does no harm, as a mark of success without its text."""
  newest = saved / '4'
  files = [path for path in newest.rglob('*') if path.is_file()]
  needed = {
    newest / 'identity' / 'metadata',
    newest / 'state' / 'manifest.ocdbt',
    max(files, key=lambda path: path.stat().st_size),
  }
  for file in files:
    copy = shutil.copytree(saved, tmp_path / 'copy')
    DAMAGES[damage](copy / file.relative_to(saved))
    try:
      assert is_state(restore(copy), 4) and file not in needed, file
    except UserError as error:
      assert re.fullmatch(
        r'checkpoint .*/copy/4 cannot be read \(.+\); if it is damaged, move '
        r'it away to go on from step 2',
        str(error),
      )
    shutil.rmtree(copy)


@pytest.mark.parametrize('folder', ['', 'identity', 'state', 'state/d'])
def test_an_emptied_folder(folder, saved):
  shutil.rmtree(saved / '2')
  shutil.rmtree(saved / '4' / folder)
  (saved / '4' / folder).mkdir()
  with pytest.raises(UserError, match='cannot be read .* move .* train again$'):
    restore(saved)


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_loss(damage, saved):
  DAMAGES[damage](saved / '2' / 'metrics' / 'metrics')
  if damage == 'missing':
    save(saved, {6: 0.4})
    assert steps(saved) == [4, 6]
  else:
    with pytest.raises(UserError, match='saved/2 cannot be read'):
      save(saved, {6: 0.4})
