"""Folders of runs in a bucket."""

import errno
import pathlib

import fsspec
import jax
import jax.numpy as jnp
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from jax.experimental.compilation_cache import compilation_cache

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError
from unifluid_jax.paths import append_text, to_path, write_whole
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.goodput import Goodput
from unifluid_jax.training.metrics import Meter, Work, read_log
from unifluid_jax.training.partial import put_aside


class Bucket(MemoryFileSystem):
  """As gcsfs: gs:// is not a part of names, and appending overwrites."""

  protocol = ('gcs', 'gs')
  store: dict = {}
  pseudo_dirs = ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix('gs://'))

  def _open(self, path, mode='rb', **options):
    return super()._open(path, mode.replace('a', 'w'), **options)


@pytest.fixture
def bucket():
  """An empty bucket."""
  fsspec.register_implementation('gcs', Bucket, clobber=True)
  Bucket.store.clear()
  folder = to_path('gs://bucket/run')
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def test_names(bucket):
  assert str(bucket / 'vae') == 'gs://bucket/run/vae'
  assert isinstance(bucket / 'vae', epath.Path)
  assert not isinstance(to_path('runs/quickstart'), epath.Path)


def test_append(bucket, tmp_path):
  for folder in (bucket, to_path(str(tmp_path))):
    file = folder / 'log'
    append_text(file, 'a\n')
    append_text(file, 'b\n')
    assert file.read_text() == 'a\nb\n'


def test_a_file_is_written_whole_or_not_at_all(bucket, tmp_path, monkeypatch):
  write = pathlib.Path.write_bytes

  def fill_disk(path, content):
    write(path, content[:1])
    raise OSError(errno.ENOSPC, 'No space left on device')

  for folder in (bucket, tmp_path):
    write_whole(folder / 'file', b'before')
    assert (folder / 'file').read_bytes() == b'before'
  monkeypatch.setattr(pathlib.Path, 'write_bytes', fill_disk)
  with pytest.raises(OSError, match="left on device: '.*/file'$"):
    write_whole(tmp_path / 'file', b'after')
  (file,) = tmp_path.iterdir()
  assert file.read_bytes() == b'before'


def test_log_of_a_resumed_run(bucket):
  def meter(start):
    work = Work(tokens=0, flops=0)
    return Meter(bucket, 'vae', 4, start, work, Goodput())

  for start, values in ((0, (3.0, 2.0)), (1, (1.5, 1.0))):
    log = meter(start)
    for step, loss in enumerate(values, start + 1):
      log.add({'loss': jnp.float32(loss), 'images': jnp.float32(1)})
      log.write(step, {})
  lines = [(line['step'], line['loss']) for line in read_log(bucket)]
  assert lines == [(1, 3.0), (2, 1.5), (3, 1.0)]


def test_tokenizer(bucket):
  file = bucket / 'tokenizer.model'
  trained = Tokenizer.train(['a b c d e f g h i j o'], 274, file)
  assert Tokenizer.load(file).fingerprint == trained.fingerprint


def test_checkpoints_are_looked_for_in_the_bucket(bucket):
  checkpoints = Checkpoints(bucket / 'checkpoints')
  with pytest.raises(UserError, match='^gs://bucket/run/checkpoints holds no'):
    checkpoints.restore({}, {})


def test_a_save_that_was_cut_off_in_the_bucket(bucket):
  folder = bucket / 'checkpoints'
  for step in ('4', '6'):
    (folder / step / 'state').mkdir(parents=True)
    (folder / step / 'state' / 'data').write_text(step)
  put_aside(folder, complete=[4])
  assert [path.name for path in folder.iterdir()] == ['4']
  aside = bucket / 'checkpoints.partial.6'
  assert (aside / 'state' / 'data').read_text() == '6'


def test_compiled_programs_are_kept_in_the_bucket(bucket):
  hits = []
  jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(
      event.endswith('compilation_cache/cache_hits')
    )
  )

  def compile_anew():
    jax.jit(lambda x: x * 5 + 3).lower(jnp.ones(7)).compile()

  settings = {
    'jax_compilation_cache_dir': str(bucket / 'jax_cache'),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    compile_anew()
    assert list((bucket / 'jax_cache').iterdir())
    hits.clear()
    jax.clear_caches()
    compile_anew()
    assert any(hits)
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
