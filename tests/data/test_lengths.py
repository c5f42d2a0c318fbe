"""Texts that no row has room for are found as training would find them."""

import dataclasses
import json
import re

import numpy as np
import PIL.Image
import pytest

from unifluid_jax.data.counting import (
  NAMES,
  Limits,
  count_texts,
  elementwise_max,
)
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks import make_task as make_emoji_task
from unifluid_jax.data.layout import LayoutConfig, lay_out
from unifluid_jax.data.lengths import check_room
from unifluid_jax.data.packing import RowCapacity, check_fits, needs_of
from unifluid_jax.data.sources import FolderTask
from unifluid_jax.utils.errors import UserError

LAYOUT = LayoutConfig(
  understanding_tokens=4,
  generated_tokens=9,
  source_tokens=True,
  understanding_size=2,
  generated_size=4,
  max_text=60,
)
ROW = RowCapacity(99, 99, 9, 9, 9)
LINES = [
  {'text': 'a b', 'question': 'a', 'answer': 'b', 'instruction': 'c'},
  {
    'text': ['a', 'a b c d e f g h', 'b'],
    'question': ['a b', 'a b c d e'],
    'answer': ['a', 'a b c d e f', 'b'],
    'instruction': ['a', 'b c d e'],
  },
]
KINDS = ('text_to_image', 'captioning', 'vqa', 'editing')


def make_task(folder, kind, lines=LINES):
  PIL.Image.new('RGB', (4, 4)).save(folder / 'a.png')
  images = {'image': 'a.png', 'source': 'a.png'}
  file = folder / 'data.jsonl'
  file.write_text('\n'.join(json.dumps(line | images) for line in lines))
  return FolderTask(file, kind, image_size=4)


def check(task, tokenizer, layout=LAYOUT, row=ROW):
  check_room({'mine': task}, {'mine': task.kind}, tokenizer, layout, row)


def changed(layout, row, limits):
  """Layout and rows with other limits."""
  return (
    dataclasses.replace(layout, max_text=limits.max_text),
    dataclasses.replace(
      row, length=limits.length, text_targets=limits.text_targets
    ),
  )


def limits_in(message, room):
  """The limits that a message says to set; others as they are."""
  told = {
    name: int(value)
    for name, value in re.findall(r'(data\.[\w.]+) = (\d+) \(it is', message)
  }
  return Limits(
    *(told.get(name, have) for name, have in zip(NAMES, room, strict=True))
  )


@pytest.mark.parametrize(
  ('kind', 'key'),
  [
    ('captioning', 'understanding_images'),
    ('vqa', 'text_targets'),
    ('editing', 'source_images'),
    ('text_to_image', 'generated_images'),
  ],
)
def test_a_row_without_any_room_is_told(kind, key, letters):
  row = RowCapacity(99, 9, 1, 1, 1)
  check_room({}, {'mine': kind}, letters, LAYOUT, row)
  wrong = dataclasses.replace(row, **{key: 0})
  with pytest.raises(
    UserError, match=rf'data\.row_capacity\.{key} is 0, .* of mine'
  ):
    check_room({}, {'mine': kind}, letters, LAYOUT, wrong)


@pytest.mark.parametrize('kind', KINDS)
def test_texts_that_are_not_known_need_a_length(kind, letters):
  """That of the longest prompt with its images, or of any text at all."""
  images = 4 * (kind != 'text_to_image')
  needed = images + 2 + (1 if kind in ('captioning', 'vqa') else 60 + 9)
  row = RowCapacity(needed, 9, 1, 1, 1)
  check_room({}, {'mine': kind}, letters, LAYOUT, row)
  wrong = dataclasses.replace(row, length=needed - 1)
  told = rf'^data\.row_capacity\.length is {needed - 1}, .* to {needed} or more'
  with pytest.raises(UserError, match=told):
    check_room({}, {'mine': kind}, letters, LAYOUT, wrong)


def longest_example(task, tokenizer):
  """Of many draws among the texts, the one that takes most slots."""
  rng = np.random.default_rng(0)
  drawn = (task.build(task[1], rng, augment=True) for _ in range(60))
  slots = [lay_out(example, tokenizer, LAYOUT) for example in drawn]
  return max(slots, key=lambda s: (len(s.kind), len(s.text_slots)))


@pytest.mark.parametrize('kind', KINDS)
def test_a_row_of_just_the_longest_example_is_enough(kind, letters, tmp_path):
  task = make_task(tmp_path, kind)
  slots = longest_example(task, letters)
  row = RowCapacity(*needs_of(slots))
  check_fits(needs_of(slots), row)
  check(task, letters, row=row)
  needed = {k: v for k, v in dataclasses.asdict(row).items() if v}
  assert len(needed) > 1
  for field, value in needed.items():
    less = dataclasses.replace(row, **{field: value - 1})
    with pytest.raises(UserError):
      check_fits(needs_of(slots), less)
    with pytest.raises(UserError, match=rf'data\.row_capacity\.{field}'):
      check(task, letters, row=less)


def test_all_limits_are_told_at_once_and_just_suffice(letters, tmp_path):
  lines = [{'text': 'a ' * (i % 30)} for i in range(60)]
  task = make_task(tmp_path, 'captioning', lines)
  room = Limits(20, 30, 16)
  layout, row = changed(LAYOUT, ROW, room)
  with pytest.raises(UserError) as error:
    check(task, letters, layout, row)
  title, *listed = str(error.value).splitlines()
  # 'caption en' takes 10 tokens of letters, 4 + 2 slots are image and specials.
  counts = [len(letters.encode_line(line['text'])) for line in lines]
  wrong = [i for i, n in enumerate(counts, 1) if n > 14]
  assert title.startswith(f'{len(wrong)} records do not fit; set ')
  assert len(listed) == 11
  assert f'line {wrong[0]} needs ' in listed[0]
  assert listed[-1] == f'  and {len(wrong) - 10} more'
  wanted = limits_in(title, room)
  assert wanted.max_text == max(counts)
  check(task, letters, *changed(layout, row, wanted))
  for field in Limits._fields:
    less = wanted._replace(**{field: getattr(wanted, field) - 1})
    with pytest.raises(UserError, match=f'{field} = '):
      check(task, letters, *changed(layout, row, less))


def test_a_longer_text_makes_other_sources_need_longer_rows(letters, tmp_path):
  """Their prompts may be of `max_text` tokens, which has to be raised."""
  task = make_task(tmp_path, 'text_to_image')
  room = Limits(12, 4 + 2 + 12 + 9, 99)
  layout, row = changed(LAYOUT, ROW, room)
  kinds = {'mine': 'text_to_image', 'other': 'editing'}
  check_room({}, {'other': 'editing'}, letters, layout, row)
  with pytest.raises(UserError) as error:
    check_room({'mine': task}, kinds, letters, layout, row)
  wanted = limits_in(str(error.value), room)
  assert wanted.length == 4 + 2 + wanted.max_text + 9
  wider = changed(layout, row, wanted)
  check_room({'mine': task}, kinds, letters, *wider)


def test_a_record_that_two_sources_read_is_listed_once(letters, tmp_path):
  tasks = {k: make_task(tmp_path, k) for k in ('captioning', 'text_to_image')}
  layout, row = changed(LAYOUT, ROW, Limits(12, 99, 99))
  with pytest.raises(
    UserError, match=r'data\.jsonl, line 2: the text'
  ) as error:
    check_room(tasks, {k: k for k in tasks}, letters, layout, row)
  assert '\n' not in str(error.value)


def test_texts_of_any_length_and_script_are_counted(letters, tmp_path):
  texts = ['', 'a', 'ä' * 3000, 'a\nb', ['a', 'ab' * 2100], '日本', 'a' * 13]
  task = make_task(tmp_path, 'captioning', [{'text': text} for text in texts])
  everything = [*count_texts(task, letters, LAYOUT, Limits(-1, -1, -1))]
  longest = [
    max(map(len, map(letters.encode_line, t if isinstance(t, list) else [t])))
    for t in texts
  ]
  assert [c.needs.text_targets - 1 for c in everything] == longest
  some = Limits(12, 999, 999)
  counted = [*count_texts(task, letters, LAYOUT, some)]
  assert counted == [c for c in everything if c.needs.max_text > 12]
  assert (
    elementwise_max(c.needs for c in counted).text_targets == max(longest) + 1
  )


def test_the_embedded_texts_are_counted_too(letters):
  task = make_emoji_task('captioning', EmojiConfig(), 'train')
  kinds = {'names': 'captioning'}
  room = Limits(10, 999, 999)
  layout, row = changed(LAYOUT, ROW, room)
  told = 'an example of names: the text .* does not fit; set'
  with pytest.raises(UserError, match=told) as error:
    check_room({'names': task}, kinds, letters, layout, row)
  wanted = limits_in(str(error.value), room)
  wider = changed(layout, row, wanted)
  check_room({'names': task}, kinds, letters, *wider)
