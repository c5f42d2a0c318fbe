"""Sheets and descriptions of examples, and the command that writes them."""

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from unifluid_jax import show
from unifluid_jax.data.example import Example
from unifluid_jax.data.sheet import CELL, describe, draw_sheet
from unifluid_jax.errors import UserError


def color(*rgb):
  return np.full((8, 8, 3), rgb, np.uint8)


def has_block(sheet, rgb):
  """Whether a whole cell of the sheet has that colour."""
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
def show_flags():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  return flagsaver.flagsaver


def test_show_writes_a_sheet_and_the_texts(show_flags, tmp_path, capsys):
  out = tmp_path / 'sheet.png'
  with show_flags(task='editing', index=3, count=2, out=str(out)):
    show.show()
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(':')[0] for line in lines] == ['3', '4']
  assert all('<image> | edit' in line for line in lines)
  with Image.open(out) as image:
    assert image.height > CELL


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'task': 'sing'}, "'sing'"),
    ({'split': 'concept'}, 'empty'),
    ({'index': 10**6}, '--index=1000000'),
    ({'out': '/no/such/folder/a.png'}, '--out=/no/such/folder'),
  ],
)
def test_show_names_a_mistake(show_flags, wrong, message, tmp_path):
  with (
    show_flags(**({'out': str(tmp_path / 'a.png')} | wrong)),
    pytest.raises(UserError, match=message),
  ):
    show.show()
