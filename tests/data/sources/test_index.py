"""The JSONL file of a folder: where captions come from, what is left out."""

import json
import os
import subprocess
import sys
import unicodedata

import PIL.Image
import pytest

from unifluid_jax.data import files
from unifluid_jax.data.sources import FolderTask
from unifluid_jax.data.sources.captions import from_name
from unifluid_jax.data.sources.index import check_out, make_index
from unifluid_jax.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
  """Makes images in a folder; gives the folder."""
  photos = tmp_path / 'photos'

  def make(*names):
    for name in names:
      file = photos / name
      file.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.new('RGB', (9, 7), 'red').save(file)
    return photos

  return make


def lines_of(photos, out=None, **options):
  """The objects of the file that is written."""
  out = out or photos / 'captions.jsonl'
  make_index(photos, **options).write(out)
  lines = out.read_text('utf-8').split('\n')[:-1]
  return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
  ('name', 'caption'),
  [
    ('red_fox-03.png', 'red fox'),
    ('sub/a-small.red_fox (12).JPG', 'a small red fox'),
    ('fox__2__.png', 'fox'),
    ('fox 1 of 2.png', 'fox 1 of'),
    ('2 foxes.png', '2 foxes'),
    ('0001.png', ''),
    ('_.png', ''),
    ('лиса_1.png', 'лиса'),
    ('赤い狐.webp', '赤い狐'),
    (unicodedata.normalize('NFD', 'fuß_für_fuß.png'), 'fuß für fuß'),
  ],
)
def test_a_caption_from_a_name(name, caption):
  assert from_name(name) == caption


def test_names_in_folders_are_read_in_one_order(folder):
  names = ['b/red_fox-1.png', 'a.png', 'B.gif', 'b.jpg', 'b/заяц.png', '7.png']
  photos = folder(*names)
  (photos / 'notes.md').write_text('no image')
  (photos / '.hidden.png').write_text('no image')
  (photos / 'loop').symlink_to(photos)
  assert lines_of(photos) == [
    {'image': 'B.gif', 'text': 'B'},
    {'image': 'a.png', 'text': 'a'},
    {'image': 'b.jpg', 'text': 'b'},
    {'image': 'b/red_fox-1.png', 'text': 'red fox'},
    {'image': 'b/заяц.png', 'text': 'заяц'},
  ]
  assert make_index(photos).left_out == {'without a text': ['7.png']}
  # What is written can be read.
  task = FolderTask(photos / 'captions.jsonl', 'text_to_image', 8)
  assert len(task) == 5


def test_paths_are_relative_to_the_file_that_is_written(folder, tmp_path):
  photos = folder('a/fox.png')
  (tmp_path / 'lists').mkdir()
  out = tmp_path / 'lists' / 'mine.jsonl'
  assert lines_of(photos, out) == [
    {'image': '../photos/a/fox.png', 'text': 'fox'}
  ]
  assert len(FolderTask(out, 'captioning', 8)) == 1


def test_text_files_beside_the_images(folder):
  photos = folder('1.png', 'sub/2.jpg', '3.png', '4.png')
  (photos / '1.txt').write_bytes(
    '\ufeffa fox\r\n\r\n a red fox \r\na fox\r\n'.encode()
  )
  (photos / 'sub' / '2.TXT').write_text('one\u2028line', encoding='utf-8')
  (photos / '4.txt').write_text(' \n')
  assert lines_of(photos) == [
    {'image': '1.png', 'text': ['a fox', 'a red fox']},
    {'image': 'sub/2.jpg', 'text': 'one\u2028line'},
  ]
  assert make_index(photos).left_out == {'without a text': ['3.png', '4.png']}
  (photos / '3.txt').write_bytes(b'\xff')
  with pytest.raises(UserError, match=r'cannot read .*3\.txt as UTF-8'):
    make_index(photos)


@pytest.mark.parametrize(
  ('header', 'mark'),
  [
    ('image,text', ','),
    ('File_Name;Caption', ';'),
    ('\ufeffid\timage\ttext', '\t'),
  ],
)
def test_a_table_of_captions(header, mark, folder, tmp_path):
  photos = folder('a.png', 'sub/b.png', 'c.png')
  quoted = '"red, ""so"" it\nsays; so\tbe it"'
  start = ['7'] if header.startswith('\ufeff') else []
  rows = [('a.png', quoted), ('sub\\b.png', 'blue'), ('a.png', 'fox'), ('', '')]
  text = '\r\n'.join([header, *(mark.join([*start, *row]) for row in rows)])
  table = tmp_path / 'table.csv'
  table.write_bytes(text.encode())
  assert lines_of(photos, table=table) == [
    {'image': 'a.png', 'text': ['red, "so" it\nsays; so\tbe it', 'fox']},
    {'image': 'sub/b.png', 'text': 'blue'},
  ]
  assert make_index(photos, table).left_out['without a text'] == ['c.png']


def test_a_table_may_spell_a_path_otherwise(folder, tmp_path):
  photos = folder(unicodedata.normalize('NFD', 'für.png'), 'b.png')
  table = tmp_path / 'table.csv'
  table.write_text(
    f'image,text\nfür.png,x\n{photos.absolute()}/b.png,y\nphotos/./b.png,z\n'
    '../none.png,n\n'
  )
  index = make_index(photos, table)
  assert [*index.texts.values()] == [['y', 'z'], ['x']]
  (missing,) = index.left_out['not an image of the folder']
  assert 'none.png' in missing and 'table.csv, line 5' in missing


def test_metadata_of_hugging_face(folder):
  photos = folder('train/a.png', 'test/b.png')
  (photos / 'train' / 'metadata.csv').write_text('file_name,text\na.png,one\n')
  (photos / 'test' / 'metadata.jsonl').write_text(
    '{"file_name": "b.png", "text": ["two", "three"], "n": 3}\n\n'
  )
  (photos / 'train' / 'a.txt').write_text('not looked at')
  assert lines_of(photos) == [
    {'image': 'test/b.png', 'text': ['two', 'three']},
    {'image': 'train/a.png', 'text': 'one'},
  ]


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('t.csv', 'image,label\na.png,x\n', 'has none of the columns text, capt'),
    ('t.csv', '', 'has none of the columns image, file_name .* none'),
    ('t.csv', 'image,text\na.png,x,y\n', 'line 2 has 3 cells and the header 2'),
    ('t.csv', 'image,text\na.png,"x\n', 'line 2: unexpected end of data'),
    ('t.csv', 'image,text\na.png,' + 'x' * 200_000, 'line 2: field larger'),
    ('t.jsonl', '{"image": "a.png"}', 'line 1 has none of the keys text, cap'),
    ('t.jsonl', '{"image": 3, "text": "x"}', 'line 1: the image or its text'),
    ('t.jsonl', '{"image": "a.png", "text": "\\ud800"}', 'is not Unicode'),
    ('t.jsonl', '[' * 100_000, 'line 1 is not JSON'),
    ('t.jsonl', '[]', 'line 1 is not a JSON object'),
  ],
)
def test_a_wrong_table(name, text, message, folder, tmp_path):
  photos = folder('a.png')
  table = tmp_path / name
  table.write_text(text)
  with pytest.raises(UserError, match=message):
    make_index(photos, table)


def test_what_cannot_be_read_is_left_out(folder):
  photos = folder('a.png')
  (photos / 'broken.jpg').write_bytes(b'no image')
  (photos / 'gone.png').symlink_to('nowhere')
  os.mkfifo(photos / 'pipe.png')
  name = os.fsdecode(b'latin\xe9.png')
  PIL.Image.new('RGB', (2, 2)).save(photos / name)
  index = make_index(photos)
  assert [*index.texts] == ['a.png']
  assert index.left_out == {
    'no image that Pillow can read': ['broken.jpg', 'gone.png', 'pipe.png'],
    'a name that is not Unicode': [ascii(name)],
  }


def test_a_large_image_is_not_decoded(folder):
  """Its header alone is right."""
  photos = folder('a.png')
  whole = (photos / 'a.png').read_bytes()
  (photos / 'a.png').write_bytes(whole[:45])
  assert [*make_index(photos).texts] == ['a.png']


def test_a_folder_without_images(tmp_path):
  with pytest.raises(UserError, match='has no images; their names end in'):
    make_index(tmp_path)
  with pytest.raises(UserError, match='none is not a folder'):
    make_index(tmp_path / 'none')


def test_nothing_is_overwritten_that_is_not_meant(folder, tmp_path):
  photos = folder('a.png')
  out, table = photos / 'captions.jsonl', tmp_path / 'table.jsonl'
  check_out(out, photos, table, force=False)
  table.write_text('')
  out.write_text('')
  with pytest.raises(UserError, match='captions.jsonl exists; .* --force'):
    check_out(out, photos, table, force=False)
  check_out(out, photos, table, force=True)
  wrong = {
    photos / '..' / 'table.jsonl': 'is the table itself',
    photos: 'is a folder; give a file',
    tmp_path / 'none' / 'x.jsonl': 'the folder .*none does not exist',
  }
  for path, message in wrong.items():
    with pytest.raises(UserError, match=message):
      check_out(path, photos, table, force=True)


_POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'


@pytest.mark.parametrize('name', ['b.png', 'a.txt', 'metadata.csv'])
def test_a_git_lfs_pointer_is_told(folder, name):
  photos = folder('a.png')
  (photos / name).write_text(_POINTER)
  with pytest.raises(UserError, match=f'{name} is a Git LFS pointer.*lfs pull'):
    make_index(photos)


def test_a_git_lfs_pointer_is_told_where_images_are_read(tmp_path):
  file = tmp_path / 'a.png'
  file.write_text(_POINTER)
  with pytest.raises(UserError, match='a.png is a Git LFS pointer'):
    files.read(file, '--image')


def test_home_is_expanded_in_every_flag(folder, tmp_path):
  folder('red_fox.png', 'hare.png')
  (tmp_path / 'table.csv').write_text('image,text\nred_fox.png,a fox\n')
  done = subprocess.run(
    [sys.executable, '-m', 'unifluid_jax.index', '~/photos']
    + ['--csv=~/table.csv', '--out=~/out.jsonl'],
    env=os.environ | {'HOME': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  line = json.loads((tmp_path / 'out.jsonl').read_text())
  assert line == {'image': 'photos/red_fox.png', 'text': 'a fox'}
