"""Sheets and descriptions of examples, and the command that writes them."""

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from experiments import quickstart
from unifluid_jax import show
from unifluid_jax.data.example import Example
from unifluid_jax.data.sheet import CELL, describe, draw_sheet
from unifluid_jax.utils.errors import UserError


def color(*rgb):
  return np.full((8, 8, 3), rgb, np.uint8)


def has_block(sheet, rgb):
  """Whether a whole cell of the sheet has that color."""
  return (sheet == rgb).all(-1).sum() == CELL * CELL


def test_a_sheet_shows_every_image():
  red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
  examples = [
    Example((color(*red), 'edit it'), color(*green)),
    Example(('a blue thing',), color(*blue)),
    Example((), color(1, 2, 3)),
  ]
  sheet = draw_sheet(examples)
  for rgb in red, green, blue, (1, 2, 3):
    assert has_block(sheet, rgb)


def test_a_sheet_shows_the_texts():
  blank = draw_sheet([Example((color(9, 9, 9), ' '), ' ')])
  texts = draw_sheet([Example((color(9, 9, 9), 'what?'), 'this')])
  black = [(sheet == 0).all(-1).sum() for sheet in (blank, texts)]
  assert black[1] > black[0] + 20


def test_describe():
  example = Example((color(0, 0, 0), 'caption en'), 'fox')
  assert describe(example) == '<image> | caption en -> fox'


@pytest.fixture
def show_flags(tmp_path):
  """Sets the command's flags; what is not given is of the quickstart."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def set_flags(config=None, **others):
    config = config or quickstart.get_config()
    defaults = {'source': 'editing', 'out': str(tmp_path / 'sheet.png')}
    return flagsaver.flagsaver(config=config, **(defaults | others))

  return set_flags


def test_show_writes_a_sheet_and_the_texts(show_flags, tmp_path, capsys):
  with show_flags(index=3, count=2):
    show.show()
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(':')[0] for line in lines] == ['3', '4']
  assert all('<image> | edit' in line for line in lines)
  with Image.open(tmp_path / 'sheet.png') as image:
    assert image.height > CELL


def test_show_reads_what_the_config_says(show_flags, tmp_path, capsys):
  """Artists, kinds and a user's own folder."""
  config = quickstart.get_config()
  config.data.artists = ('twemoji',)
  with show_flags(config, source='text_to_image', count=50):
    show.show()
  told = capsys.readouterr().out
  assert 'twemoji' in told
  assert 'noto' not in told
  Image.new('RGB', (40, 30), 'red').save(tmp_path / 'red.png')
  lines = tmp_path / 'mine.jsonl'
  lines.write_text('{"image": "red.png", "text": "all red"}')
  config.data.sources.mine = {
    'kind': 'folder',
    'task': 'captioning',
    'weight': 1.0,
    'path': str(lines),
  }
  with show_flags(config, source='mine'):
    show.show()
  assert capsys.readouterr().out == '0: <image> | caption en -> all red\n'


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'source': 'sing'}, "'sing'.*text_to_image"),
    ({'source': None}, '--source'),
    ({'index': 10**6}, '--index=1000000'),
    ({'out': '/no/such/folder/a.png'}, '--out=/no/such/folder'),
  ],
)
def test_show_names_a_mistake(show_flags, wrong, message):
  with show_flags(**wrong), pytest.raises(UserError, match=message):
    show.show()
