"""Folders of runs in a bucket."""

import errno
import pathlib
import unicodedata

import fsspec
import jax
import jax.numpy as jnp
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from jax.experimental.compilation_cache import compilation_cache

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.metrics import Meter, StepWork, read_log
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import (
  append_text,
  as_on_disk,
  check_folder,
  local_path,
  to_path,
  write_whole,
)
from unifluid_jax.weights.incomplete_saves import put_aside


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
    work = StepWork(tokens=0, flops=0)
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


def test_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert to_path('~/runs/mine') == tmp_path / 'runs' / 'mine'
  assert to_path('~') == tmp_path
  assert to_path('./~/x') == pathlib.Path('~/x').absolute()
  assert to_path(str(to_path('./~a'))) == pathlib.Path('~a').absolute()
  assert to_path('runs/~') == pathlib.Path('runs/~')
  with pytest.raises(UserError, match='^~no_such_user/x: there is no home fol'):
    to_path('~no_such_user/x')


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('s3://bucket/run', 's3://bucket/run is neither a path on this machine'),
    ('gs:/bucket/run', 'gs:/bucket/run is neither a path on this machine'),
    ('https://x.org/a.png', 'https://x.org/a.png is neither a path on this'),
    ('file:///tmp/a', 'file:///tmp/a is neither a path on this machine'),
    ('a\0b', 'has a NUL character'),
  ],
)
def test_what_is_no_path(text, told):
  with pytest.raises(UserError) as caught:
    to_path(text)
  assert told in str(caught.value)


def test_a_colon_may_be_in_a_name():
  assert to_path('runs/12:30') == pathlib.Path('runs/12:30')
  assert to_path('a:b/c') == pathlib.Path('a:b/c')


def test_a_bucket_without_what_reads_it(monkeypatch):
  def missing(name):
    raise ImportError(f'Please install gcsfs to access {name}')

  monkeypatch.setattr(fsspec, 'get_filesystem_class', missing)
  with pytest.raises(
    UserError, match="^gs://a/b is in a bucket, and gcsfs, .*'"
  ):
    to_path('gs://a/b')


def test_what_must_be_on_this_machine(bucket):
  with pytest.raises(UserError, match='^--out=gs://a/b is in a bucket; name a'):
    local_path('gs://a/b', '--out=gs://a/b')
  with pytest.raises(UserError, match='^--out= is empty; name a path'):
    local_path('', '--out=')


@pytest.mark.parametrize('on_disk', ['NFC', 'NFD'])
@pytest.mark.parametrize('given', ['NFC', 'NFD'])
def test_another_unicode_form(on_disk, given, tmp_path):
  def form(which):
    return unicodedata.normalize(which, 'Köln/가나/ñandú')

  file = tmp_path / form(on_disk) / 'a.png'
  file.parent.mkdir(parents=True)
  file.touch()
  asked = f'{tmp_path}/{form(given)}'
  assert to_path(f'{asked}/a.png').samefile(file)
  # What is not there keeps its name, in the folder that is.
  assert to_path(f'{asked}/b.png') == file.parent / 'b.png'
  assert to_path(f'{asked}/é').parent == file.parent


def test_forms_may_differ_within_a_name(tmp_path):
  mixed = unicodedata.normalize('NFC', 'é') + unicodedata.normalize('NFD', 'é')
  (tmp_path / mixed).touch()
  for form in ('NFC', 'NFD'):
    asked = tmp_path / unicodedata.normalize(form, mixed)
    assert as_on_disk(asked).samefile(tmp_path / mixed)


def test_both_forms_are_two_files_where_both_are_there(tmp_path):
  for form in ('NFC', 'NFD'):
    (tmp_path / unicodedata.normalize(form, 'é')).write_text(form)
  for form in ('NFC', 'NFD'):
    asked = tmp_path / unicodedata.normalize(form, 'é')
    assert as_on_disk(asked).read_text() == form


def test_a_folder_is_tried_and_nothing_is_left(tmp_path):
  check_folder(tmp_path / 'ä' / 'b')
  assert not [*tmp_path.iterdir()]
  file = tmp_path / 'file'
  file.write_text('kept')
  for folder in (file, file / 'b', tmp_path / 'a' / ('b' * 300)):
    with pytest.raises(OSError):
      check_folder(folder)
  assert [*tmp_path.iterdir()] == [file]
  assert file.read_text() == 'kept'
