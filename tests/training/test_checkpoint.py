"""Checkpoints: complete or absent, undamaged, and what is kept of them."""

import collections
import pathlib
import random
import re
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from tests.abstract import abstract
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import checkpoint_reader
from unifluid_jax.weights.checkpoint_reader import CheckpointReader

# TensorStore's threads report to a loop that Orbax has closed after an error.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

IDENTITY = {'seed': 0, 'model': {'width': 4}}
FLIPS = 2
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


def target() -> dict[str, jax.ShapeDtypeStruct]:
  return abstract(state(0))


def restore(folder: pathlib.Path, identity=IDENTITY) -> dict[str, jax.Array]:
  return CheckpointReader(folder).restore(target(), identity)


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
  monkeypatch.setattr(checkpoint_reader, '_PATIENCE', 3)
  monkeypatch.setattr(checkpoint_reader.time, 'sleep', lambda seconds: None)
  monkeypatch.setattr(
    checkpoint_reader.processes, 'gather', lambda step: answers.pop(0)
  )
  CheckpointReader(saved).agree()
  assert answers == [[2, 1]]
  answers += [[2, -1], [2, -1]]
  told = 'not the same to all processes: process 0 step 2, process 1 none'
  with pytest.raises(UserError, match=told):
    CheckpointReader(saved).agree()


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
  aside = saved.with_name(f'saved.partial.{partial.name}')
  shutil.copytree(saved / '4', partial)
  (partial / 'state' / 'manifest.ocdbt').unlink()
  assert is_state(restore(saved), 4)
  assert partial.exists()  # Another process may be writing it.
  with caplog.at_level('WARNING'):
    save(saved, {8: 0.4})
  assert steps(saved) == [4, 8]
  assert (aside / 'state').exists()
  assert not (aside / 'state' / 'manifest.ocdbt').exists()
  (line,) = [r.getMessage() for r in caplog.records if 'interrupted' in r.msg]
  assert line.startswith('the save of step 6 was interrupted')
  assert f'is kept in {aside} until' in line
  # The next one takes its place, and a start without one leaves it alone.
  save(saved, {9: 0.3})
  assert aside.exists()
  # Two leftovers of one step are both kept.
  leftovers = ('12.orbax-checkpoint-tmp', '12.orbax-checkpoint-tmp-1')
  for name in leftovers:
    shutil.copytree(saved / '9', saved / name)
  save(saved, {10: 0.2})
  assert not aside.exists()
  for name in leftovers:
    assert saved.with_name(f'saved.partial.{name}').exists()


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


def all_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def flip(file: pathlib.Path, bit: int) -> None:
  content = bytearray(file.read_bytes())
  content[bit // 8] ^= 1 << bit % 8
  file.write_bytes(content)


def test_a_flipped_bit(saved):
  """In every file: never are other numbers read, and never is it an error."""
  rng = random.Random(0)
  used = collections.Counter()
  for file in all_files(saved / '4'):
    for bit in rng.sample(range(8 * file.stat().st_size), FLIPS):
      flip(file, bit)
      found = restore(saved)
      step = int(found['step'])
      assert step in (2, 4) and is_state(found, step), (file, bit)
      is_sealed = file.name != '_CHECKPOINT_METADATA' and file != (
        saved / '4' / 'commit_success.txt'
      )
      assert step == (2 if is_sealed else 4), (file, bit)
      used[step] += 1
      flip(file, bit)
  assert used[2] > 25 and used[4] == 2 * FLIPS


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file(damage, saved, caplog):
  """A reader takes the one before and moves nothing."""
  needless = {'_CHECKPOINT_METADATA', 'commit_success.txt'}
  for file in all_files(saved / '4'):
    before = file.read_bytes()
    DAMAGES[damage](file)
    caplog.clear()
    found = restore(saved)
    file.write_bytes(before)
    if file.parent == saved / '4' and file.name in needless:
      assert is_state(found, 4) and not caplog.records
      continue
    assert is_state(found, 2), file
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f'checkpoint {saved / "4"} is damaged (')
    assert line.endswith('); step 2 is used instead')
    assert file.name in line
  assert steps(saved) == [2, 4]


def test_a_file_that_cannot_be_read(saved):
  """Nor can a folder in its place."""
  file = saved / '4' / 'state' / 'manifest.ocdbt'
  file.unlink()
  file.mkdir()
  assert is_state(restore(saved), 2)


def test_a_file_too_many_does_no_harm(saved):
  (saved / '4' / 'state' / '.DS_Store').write_bytes(b'x')
  assert is_state(restore(saved), 4)


@pytest.mark.parametrize('folder', ['', 'identity', 'state', 'state/d'])
def test_an_emptied_folder(folder, saved):
  shutil.rmtree(saved / '4' / folder)
  (saved / '4' / folder).mkdir()
  assert is_state(restore(saved), 2)
  shutil.rmtree(saved / '2')
  with pytest.raises(UserError, match='no checkpoint that can be used.*step 4'):
    restore(saved)


def test_a_run_moves_damaged_checkpoints_aside(saved, caplog):
  """Those that are seen to be when the folder is opened, and when restored."""
  save(saved, {6: 0.4}, keep=3)
  flip(max(all_files(saved / '6'), key=lambda f: f.stat().st_size), 4000)
  flip(saved / '4' / 'metrics' / 'metrics', 70)
  with Checkpoints(saved, keep=3) as checkpoints:
    assert is_state(checkpoints.restore(target(), IDENTITY), 2)
    assert checkpoints.steps == [2]
    checkpoints.save(4, state(4), IDENTITY, 0.6)
    checkpoints.save(6, state(6), IDENTITY, 0.7)
  assert steps(saved) == [2, 4, 6]
  assert is_state(restore(saved), 6)
  for step in (4, 6):
    aside = saved.with_name(f'saved.damaged.{step}')
    assert (aside / 'state').exists()
    (line,) = [m for m in caplog.messages if f'kept in {aside}' in m]
    assert f'{saved / str(step)} is damaged (' in line


def test_large_files_are_checked_when_they_are_restored(tmp_path):
  """Opening the folder reads none of them."""
  numbers = {'x': jax.random.normal(jax.random.key(0), (300, 100))}
  shapes = abstract(numbers)
  with Checkpoints(tmp_path / 'saved', keep=2) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, numbers, IDENTITY, 1.0)
  largest = max(all_files(tmp_path / 'saved/2'), key=lambda f: f.stat().st_size)
  assert largest.stat().st_size > 2**16
  flip(largest, 8 * 5000)
  with Checkpoints(tmp_path / 'saved', keep=2) as checkpoints:
    assert checkpoints.latest_step == 2
    found = checkpoints.restore(shapes, IDENTITY)
    assert (found['x'] == numbers['x']).all()
    assert checkpoints.latest_step == 1


def test_nothing_is_moved_if_all_are_damaged(saved):
  for step in (2, 4):
    (saved / str(step) / 'state' / '_METADATA').unlink()
  for use in (restore, lambda folder: save(folder, {6: 0.4})):
    with pytest.raises(UserError) as error:
      use(saved)
    assert re.fullmatch(
      r'.*/saved holds no checkpoint that can be used. Damaged: '
      r'step 2 \(state/_METADATA: No such file or directory\); step 4 \(.*\). '
      r'Copy it from a backup, or move it away to train again',
      str(error.value),
    )
  assert steps(saved) == [2, 4]


class Divided(NamedTuple):
  """As the state of a training: `params` are not read to sample."""

  step: jax.Array
  params: dict[str, jax.Array]
  ema: dict[str, jax.Array]


class Part(NamedTuple):
  """What is read of it to sample."""

  step: jax.Array
  ema: dict[str, jax.Array]


def test_a_reader_checks_only_what_it_reads(tmp_path):
  big = jax.random.normal(jax.random.key(0), (200, 100))
  whole = Divided(jnp.int32(1), {'w': big}, {'w': big + 1})
  shapes = abstract(whole)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, whole, IDENTITY, 1.0)
  data = [f for f in all_files(tmp_path / '1') if f.stat().st_size > 2**16]
  ours, others = sorted(data)
  assert ours.is_relative_to(tmp_path / '1' / 'state')
  partly = Part(shapes.step, shapes.ema)
  reader = CheckpointReader(tmp_path)
  assert (reader.restore(shapes, IDENTITY).params['w'] == big).all()
  flip(others, 12345)
  found = reader.restore(partly, IDENTITY)
  assert (found.ema['w'] == big + 1).all()
  with pytest.raises(UserError, match=f'{others.name} has changed'):
    reader.restore(shapes, IDENTITY)
  flip(ours, 12345)
  with pytest.raises(UserError, match=f'{ours.name} has changed'):
    reader.restore(partly, IDENTITY)


def save_as_before(folder: pathlib.Path, step: int, tree) -> None:
  """As versions without checksums did."""
  with ocp.CheckpointManager(
    folder, options=ocp.CheckpointManagerOptions(best_fn=lambda m: m['loss'])
  ) as manager:
    manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(tree),
        identity=ocp.args.JsonSave(IDENTITY),
      ),
      metrics={'loss': 1.0},
    )


def test_a_checkpoint_of_before_loads_with_a_warning(tmp_path, caplog):
  save_as_before(tmp_path, 2, state(2))
  assert is_state(restore(tmp_path), 2)
  (line,) = [m for m in caplog.messages if str(tmp_path) in m]
  assert line.startswith(f'{tmp_path / "2"} was saved without checksums')
  save(tmp_path, {4: 0.5})
  caplog.clear()
  assert is_state(restore(tmp_path), 4) and not caplog.messages
  flip(tmp_path / '4' / 'state' / '_METADATA', 80)
  assert is_state(restore(tmp_path), 2)
  (tmp_path / '2' / 'state' / 'manifest.ocdbt').write_bytes(b'')
  with pytest.raises(UserError, match=r'Damaged: step 2 \(.*; step 4'):
    restore(tmp_path)


def test_a_divided_state_of_before(tmp_path):
  whole = Divided(jnp.int32(1), {'w': jnp.ones(3)}, {'w': jnp.zeros(3)})
  shapes = abstract(whole)
  save_as_before(tmp_path, 1, whole)
  reader = CheckpointReader(tmp_path)
  found = reader.restore(shapes, IDENTITY)
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), found, whole))
  partly = Part(shapes.step, shapes.ema)
  assert (reader.restore(partly, IDENTITY).ema['w'] == 0).all()


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_what_is_not_finite_is_neither_saved_nor_restored(bad, dtype, tmp_path):
  array = jnp.ones((7, 300), dtype).at[3, 5].set(bad)
  tree = {'ema': {'a': jnp.ones(3), 'b': array}, 'step': jnp.int32(1)}
  shapes = abstract(tree)
  with (
    pytest.raises(UserError, match='step 1 is not saved .*: ema/b hold NaN'),
    Checkpoints(tmp_path / 'new') as checkpoints,
  ):
    checkpoints.save(1, tree, IDENTITY, 1.0)
  assert steps(tmp_path / 'new') == []
  save_as_before(tmp_path / 'old', 1, tree)
  with pytest.raises(UserError, match=r'step 1 \(ema/b hold NaN or infinity\)'):
    CheckpointReader(tmp_path / 'old').restore(shapes, IDENTITY)


def test_processes_agree_on_what_is_damaged(saved, monkeypatch):
  """Each looks at its share of a checkpoint."""
  gathered = []

  def gather(value):
    gathered.append(value)
    return [value, len(gathered) == 1]

  monkeypatch.setattr(checkpoint_reader.processes, 'gather', gather)
  Checkpoints(saved).put_damaged_aside()
  assert gathered == [False, False]
  assert steps(saved) == [4]
