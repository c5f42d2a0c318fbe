"""Texts that no row has room for are told as those of the examples are."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest

from unifluid_jax.data.layout import LayoutConfig, lay_out
from unifluid_jax.data.lengths import check_longest, check_texts
from unifluid_jax.data.packing import RowConfig, check_fits, needs_of
from unifluid_jax.data.sources import FolderTask
from unifluid_jax.errors import UserError

LAYOUT = LayoutConfig(
  understanding_tokens=4,
  generated_tokens=9,
  source_tokens=True,
  understanding_size=2,
  generated_size=4,
  max_text=60,
)
LINES = [
  {'text': 'a b', 'question': 'a', 'answer': 'b', 'instruction': 'c'},
  {
    'text': ['a', 'a b c d e f g h', 'b'],
    'question': ['a b', 'a b c d e'],
    'answer': ['a', 'a b c d e f', 'b'],
    'instruction': ['a', 'b c d e'],
  },
]


def make_task(folder, kind):
  PIL.Image.new('RGB', (4, 4)).save(folder / 'a.png')
  images = {'image': 'a.png', 'source': 'a.png'}
  file = folder / 'data.jsonl'
  file.write_text('\n'.join(json.dumps(line | images) for line in LINES))
  return FolderTask(file, kind, image_size=4)


@pytest.mark.parametrize(
  ('kind', 'key'),
  [
    ('captioning', 'understanding_images'),
    ('vqa', 'text_targets'),
    ('editing', 'source_images'),
    ('text_to_image', 'generated_images'),
  ],
)
def test_a_row_without_any_room_is_told(kind, key):
  row = RowConfig(99, 9, 1, 1, 1)
  check_longest('mine', kind, LAYOUT, row)
  wrong = dataclasses.replace(row, **{key: 0})
  with pytest.raises(UserError, match=rf'data\.row\.{key} is 0, .* of mine'):
    check_longest('mine', kind, LAYOUT, wrong)


@pytest.mark.parametrize('kind', ['captioning', 'vqa'])
def test_a_row_that_ends_before_any_text_is_told(kind):
  row = RowConfig(7, 9, 1, 0)  # 4 of the image, BOS, separator, and a text
  check_longest('mine', kind, LAYOUT, row)
  wrong = dataclasses.replace(row, length=6)
  told = r'data\.row\.length is 6, but an example of mine takes 6 before'
  with pytest.raises(UserError, match=told):
    check_longest('mine', kind, LAYOUT, wrong)


def longest_example(task, tokenizer):
  """Of many draws among the texts, the one that takes most slots."""
  rng = np.random.default_rng(0)
  drawn = (task.build(task[1], rng, augment=True) for _ in range(60))
  slots = [lay_out(example, tokenizer, LAYOUT) for example in drawn]
  return max(slots, key=lambda s: (len(s.kind), len(s.text_slots)))


@pytest.mark.parametrize(
  'kind', ['text_to_image', 'captioning', 'vqa', 'editing']
)
def test_a_row_of_just_the_longest_example_is_enough(kind, letters, tmp_path):
  task = make_task(tmp_path, kind)
  slots = longest_example(task, letters)
  row = RowConfig(*needs_of(slots))
  check_fits(needs_of(slots), row)
  check_texts(task, letters, LAYOUT, row)
  needed = {k: v for k, v in dataclasses.asdict(row).items() if v}
  assert len(needed) > 1
  for field, value in needed.items():
    less = dataclasses.replace(row, **{field: value - 1})
    with pytest.raises(UserError) as packed:
      check_fits(needs_of(slots), less)
    with pytest.raises(UserError) as checked:
      check_texts(task, letters, LAYOUT, less)
    place, told = str(checked.value).split(': ', 1)
    assert told == str(packed.value)
    assert place.startswith(str(tmp_path / 'data.jsonl, line '))
    assert field in told


def test_a_text_of_too_many_tokens(letters, tmp_path):
  task = make_task(tmp_path, 'captioning')
  short = dataclasses.replace(LAYOUT, max_text=12)
  with pytest.raises(UserError, match=r"line 2: the text 'a b c d e f g h' "):
    check_texts(task, letters, short, RowConfig(99, 99, 9, 9))
