"""Image files on disk: only regular ones of a sensible size are read."""

import os
import pathlib

import pytest

from unifluid_jax.data import files
from unifluid_jax.utils.errors import UserError


def test_a_file_is_read_whole_also_through_a_link(tmp_path):
  file, link = tmp_path / 'a.png', tmp_path / 'b.png'
  file.write_bytes(b'content')
  link.symlink_to(file)
  assert files.read(file, 'x') == files.read(link, 'x') == b'content'


@pytest.mark.parametrize('kind', ['device', 'link to a device', 'pipe', 'dir'])
def test_what_is_no_regular_file_is_refused(kind, tmp_path):
  path = tmp_path / 'x.png'
  match kind:
    case 'device':
      path = pathlib.Path('/dev/zero')
    case 'link to a device':
      path.symlink_to('/dev/zero')
    case 'pipe':
      os.mkfifo(path)  # Nobody writes to it: to wait for one is to hang.
    case 'dir':
      path.mkdir()
  with pytest.raises(UserError, match='^x .*(regular file|Is a directory)'):
    files.read(path, 'x')


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
  path = tmp_path / 'x.png'
  with path.open('wb') as file:
    file.truncate(2**43)  # Takes no room on disk, and no memory holds it.
  with pytest.raises(UserError, match='^x has 8,796,093,022,208 bytes, more'):
    files.read(path, 'x')


def test_a_file_that_is_missing(tmp_path):
  with pytest.raises(UserError, match='^x cannot be read: No such file'):
    files.read(tmp_path / 'x.png', 'x')
