"""A folder of images with a JSONL file: schema, examples, errors."""

import json
import unicodedata

import numpy as np
import PIL.Image
import pytest

from unifluid_jax.data.sources import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.utils.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
  """Writes a JSONL file; red.png and sub/blue.jpg lie beside it."""
  PIL.Image.new('RGB', (12, 8), (200, 0, 0)).save(tmp_path / 'red.png')
  (tmp_path / 'sub').mkdir()
  PIL.Image.new('RGB', (8, 8), (0, 0, 200)).save(tmp_path / 'sub' / 'blue.jpg')
  (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\nno image')

  def write(*lines: dict | str):
    file = tmp_path / 'data.jsonl'
    texts = [
      line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
      for line in lines
    ]
    file.write_text('\n'.join(texts) + '\n', encoding='utf-8')
    return file

  return write


def first_example(file, kind, augment=False):
  task = FolderTask(file, kind, image_size=4)
  return task.build(task[0], RNG, augment)


def is_red(image) -> bool:
  return image.shape[-1] == 3 and (image == (200, 0, 0)).all()


def is_blue(image) -> bool:
  return image.shape[-1] == 3 and np.allclose(image, (0, 0, 200), atol=9)


def test_text_to_image(folder):
  file = folder({'image': 'red.png', 'text': 'a red box'})
  example = first_example(file, 'text_to_image')
  assert example.prefix == ('a red box',)
  assert is_red(example.target)
  assert (example.task, example.facts) == ('text_to_image', {})


def test_captioning(folder):
  file = folder({'image': 'sub/blue.jpg', 'text': 'a blue box'})
  example = first_example(file, 'captioning')
  image, prompt = example.prefix
  assert is_blue(image)
  assert (prompt, example.target) == ('caption en', 'a blue box')
  assert example.facts == {'references': ('a blue box',)}


def test_vqa(folder):
  file = folder({'image': 'red.png', 'question': 'color? {}', 'answer': 'red'})
  example = first_example(file, 'vqa')
  image, prompt = example.prefix
  assert is_red(image)
  assert (prompt, example.target) == ('answer en color? {}', 'red')


def test_editing(folder):
  file = folder(
    {'source': 'red.png', 'instruction': 'go blue', 'image': 'sub/blue.jpg'}
  )
  example = first_example(file, 'editing')
  source, prompt = example.prefix
  assert is_red(source)
  assert prompt == 'edit go blue'
  assert is_blue(example.target)


def test_images_of_any_size_and_mode(folder, tmp_path):
  red = PIL.Image.new('RGB', (9, 5), (200, 0, 0))
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # turn by 90 degrees
  clear = PIL.Image.new('RGBA', (6, 6), (0, 0, 0, 0))
  pictures = {
    'palette.png': red.convert('P', palette=PIL.Image.Palette.ADAPTIVE),
    'alpha.png': red.convert('RGBA'),
    'upright.jpg': red,
    'pixel.png': red.resize((1, 1)),
    'wide.png': red.resize((900, 2)),
    'gray.png': PIL.Image.new('L', (3, 7), 90),
    'clear.png': clear,
  }
  for name, picture in pictures.items():
    picture.save(tmp_path / name, **({'exif': exif} if 'jpg' in name else {}))
  file = folder(*({'image': name, 'text': name} for name in pictures))
  task = FolderTask(file, 'text_to_image', image_size=4)
  found = {}
  for i in range(len(task)):
    example = task.build(task[i], RNG, True)
    assert example.target.shape == (4, 4, 3)
    found[example.prefix[0]] = example.target.mean((0, 1))
  expected = dict.fromkeys(pictures, (200, 0, 0))
  expected |= {'gray.png': (90, 90, 90), 'clear.png': (255, 255, 255)}
  for name, color in expected.items():
    np.testing.assert_allclose(found[name], color, atol=2, err_msg=name)


def test_one_file_serves_several_kinds(folder):
  file = folder(
    {'image': 'red.png', 'text': 'box', 'question': 'what?', 'answer': 'a box'}
  )
  assert first_example(file, 'vqa').target == 'a box'
  assert first_example(file, 'captioning').target == 'box'


def test_lines_of_another_kind_are_passed_over(folder):
  file = folder(
    {'image': 'red.png', 'text': 'box'},
    {'image': 'red.png', 'question': 'what?', 'answer': 'a box'},
    {'source': 'red.png', 'instruction': 'blue', 'image': 'sub/blue.jpg'},
  )
  for kind in ('text_to_image', 'captioning', 'vqa', 'editing'):
    assert len(FolderTask(file, kind, 4)) == 1
  only = folder({'image': 'red.png', 'text': 'box'})
  with pytest.raises(UserError, match="has no records of kind 'vqa'"):
    FolderTask(only, 'vqa', 4)


def test_of_several_texts_training_draws_and_evaluation_takes_the_first(folder):
  texts = ['a', 'b', 'c']
  task = FolderTask(
    folder({'image': 'red.png', 'text': texts}), 'captioning', 4
  )
  drawn = [task.build(task[0], RNG, augment=True) for _ in range(30)]
  assert {example.target for example in drawn} == set(texts)
  fixed = [task.build(task[0], RNG, augment=False) for _ in range(5)]
  assert {example.target for example in fixed} == {'a'}
  assert fixed[0].facts['references'] == ('a', 'b', 'c')


def test_records_keep_their_order_and_blank_lines_do_not_count(folder):
  lines = [{'image': 'red.png', 'text': f'box {i}\u2028!'} for i in range(3)]
  task = FolderTask(folder('', *lines, '  '), 'text_to_image', 4)
  assert isinstance(task, Task)
  assert len(task) == 3
  prompts = [task.build(task[i], RNG, False).prefix[0] for i in range(3)]
  assert prompts == ['box 0\u2028!', 'box 1\u2028!', 'box 2\u2028!']


@pytest.mark.parametrize(
  ('listed', 'on_disk'), [('NFC', 'NFD'), ('NFD', 'NFC')]
)
def test_names_in_another_unicode_form(listed, on_disk, folder, tmp_path):
  """As a list from macOS names images that Linux holds."""

  def form(which):
    return unicodedata.normalize(which, 'Ü/é.png')

  image = tmp_path / form(on_disk)
  image.parent.mkdir()
  PIL.Image.new('RGB', (8, 8), (200, 0, 0)).save(image)
  file = folder({'image': form(listed), 'text': 'a red box'})
  assert is_red(first_example(file, 'text_to_image').target)


def test_images_and_a_list_in_the_home_folder(folder, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  folder({'image': '~/red.png', 'text': 'a red box'})
  assert is_red(first_example('~/data.jsonl', 'text_to_image').target)


GOOD = {'image': 'red.png', 'text': 'a red box'}


def test_a_byte_order_mark_is_no_part_of_the_first_line(folder):
  file = folder(GOOD)
  file.write_text('\ufeff' + file.read_text(), encoding='utf-8')
  assert len(FolderTask(file, 'text_to_image', 4)) == 1


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ({'image': 'red.png'}, "line 2 has no key 'text'.*'text', 'image'"),
    (
      {'image': 'no.png', 'text': 'x'},
      'line 2: the image .*no.png does not',
    ),
    ({'image': 'sub', 'text': 'x'}, 'line 2: the image .*sub does not exist'),
    (
      {'image': 'a' * 5000, 'text': 'x'},
      'line 2: the image .*aaa does not',
    ),
    ({'image': 3, 'text': 'x'}, "line 2: 'image' is not the path"),
    ({'image': 'red.png', 'text': 3}, "line 2: 'text' is neither a text"),
    ({'image': 'red.png', 'text': []}, "line 2: 'text' is neither a text"),
    ({'image': 'red.png', 'text': [None]}, "line 2: 'text' is neither a text"),
    ('{"image": "red.png", "text"', 'line 2 is not JSON: Expecting'),
    ('[' * 100_000, 'line 2 is not JSON: its brackets are nested too'),
    ('{"a": ' * 100_000, 'line 2 is not JSON: its brackets are nested too'),
    (
      '{"image": "red.png", "text": "a", "text": "b"}',
      "line 2 is not JSON: an object has the key 'text' 2 times",
    ),
    ('{"n": ' + '1' * 5000 + '}', 'line 2 is not JSON: Exceeds the limit'),
    (
      '{"image": "red.png", "text": "\\ud800"}',
      "line 2: 'text' is not Unicode: .*surrogates not allowed",
    ),
    ('["red.png", "x"]', 'line 2 is not a JSON object'),
  ],
)
def test_a_wrong_line_names_file_and_line(folder, line, message):
  with pytest.raises(UserError, match=f'data.jsonl, {message}'):
    FolderTask(folder(GOOD, line), 'text_to_image', 4)


def test_all_wrong_lines_are_told_at_once(folder):
  missing = [{'image': f'{i}.png', 'text': 'x'} for i in range(30)]
  with pytest.raises(UserError) as error:
    FolderTask(folder(GOOD, 'no JSON', GOOD, *missing), 'captioning', 4)
  title, *lines = str(error.value).splitlines()
  assert title.startswith('31 of 33 lines of ')
  assert len(lines) == 11
  assert 'data.jsonl, line 2 is not JSON' in lines[0]
  assert 'data.jsonl, line 4: the image' in lines[1]
  assert lines[-1] == '  and 21 more'


def test_a_corrupt_image_names_file_line_and_image(folder):
  file = folder(GOOD, {'image': 'broken.png', 'text': 'x'})
  task = FolderTask(file, 'captioning', 4)
  match = r'data\.jsonl, line 2: .*broken\.png is not a readable image'
  with pytest.raises(UserError, match=match):
    task.build(task[1], RNG, False)


def test_an_image_that_went_away(folder, tmp_path):
  task = FolderTask(folder(GOOD), 'captioning', 4)
  (tmp_path / 'red.png').unlink()
  match = r'data\.jsonl, line 1: .*red\.png cannot be read: No such file'
  with pytest.raises(UserError, match=match):
    task.build(task[0], RNG, False)


def test_a_file_that_cannot_be_used(folder, tmp_path):
  with pytest.raises(UserError, match=r'cannot read .*none\.jsonl'):
    FolderTask(tmp_path / 'none.jsonl', 'captioning', 4)
  with pytest.raises(UserError, match=r'data\.jsonl has no records'):
    FolderTask(folder(''), 'captioning', 4)
  (tmp_path / 'latin.jsonl').write_bytes('{"text": "\xe9"}'.encode('latin-1'))
  with pytest.raises(UserError, match=r'cannot read .*latin\.jsonl as UTF-8'):
    FolderTask(tmp_path / 'latin.jsonl', 'captioning', 4)
  with pytest.raises(UserError, match="kind 'songs'; choose one of .*'vqa'"):
    FolderTask(folder(GOOD), 'songs', 4)
