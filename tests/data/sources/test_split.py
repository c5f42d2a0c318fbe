"""Held-out lines of a folder: whole images, and always the same ones."""

import json

import numpy as np
import PIL.Image
import pytest

from unifluid_jax.data.sources import FolderTask
from unifluid_jax.data.sources.split import is_heldout
from unifluid_jax.utils.errors import UserError

NAMES = [f'{i}.png' for i in range(60)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of images."""
  path = tmp_path_factory.mktemp('photos')
  for name in NAMES:
    PIL.Image.new('RGB', (4, 4)).save(path / name)
  return path


def task_of(folder, lines, split='heldout', share=0.3, kind='captioning'):
  file = folder / 'lines.jsonl'
  file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return FolderTask(file, kind, 4, split, share)


def images_of(task):
  return [task[i]['image'] for i in range(len(task))]


def lines(names, text='x'):
  return [{'image': name, 'text': text} for name in names]


def test_the_splits_share_the_images_out(folder):
  splits = {
    split: images_of(task_of(folder, lines(NAMES), split))
    for split in ('train', 'heldout', 'all')
  }
  assert splits['all'] == NAMES
  assert 8 < len(splits['heldout']) < 30
  assert sorted(splits['train'] + splits['heldout']) == sorted(NAMES)
  assert not {*splits['train']} & {*splits['heldout']}


def test_the_lines_of_an_image_stay_together(folder):
  """Whatever their texts and their tasks."""
  both = [*lines(NAMES), *lines(NAMES[::-1], 'another text')]
  twice = images_of(task_of(folder, both))
  once = images_of(task_of(folder, lines(NAMES), kind='text_to_image'))
  assert twice == once + once[::-1]


def test_other_lines_move_none(folder):
  before = {*images_of(task_of(folder, lines(NAMES[::2])))}
  after = {*images_of(task_of(folder, lines(NAMES[::-1])))}
  assert before == after & {*NAMES[::2]}
  more = {*images_of(task_of(folder, lines(NAMES), share=0.5))}
  assert after < more


def test_a_path_counts_however_it_is_spelled(folder):
  for name in NAMES:
    spelled = (f'./{name}', f'sub/../{name}', str(folder / name))
    found = {is_heldout(path, folder, 0.3) for path in (name, *spelled)}
    assert len(found) == 1
  assert (
    len({is_heldout(p, folder, 0.5) for p in ('é.png', 'e\u0301.png')}) == 1
  )


def test_the_share_is_about_that_of_the_images(tmp_path):
  for share in (0.0, 0.02, 0.1, 0.5):
    held = [is_heldout(f'a/{i}.jpg', tmp_path, share) for i in range(20_000)]
    # Four standard deviations of a fair draw.
    room = 4 * np.sqrt(share * (1 - share) / len(held))
    assert abs(np.mean(held) - share) <= room


def test_an_edit_is_held_out_with_either_image(folder):
  """So that training sees no held-out image, not even as a source."""
  edits = [
    {'source': one, 'instruction': 'x', 'image': other}
    for one, other in zip(NAMES, NAMES[1:], strict=False)
  ]
  held = {*images_of(task_of(folder, lines(NAMES)))}
  train = task_of(folder, edits, 'train', kind='editing')
  seen = {
    train[i][key] for i in range(len(train)) for key in ('source', 'image')
  }
  assert train and not seen & held
  task = task_of(folder, edits, 'heldout', kind='editing')
  assert len(task) + len(train) == len(edits)


def test_nothing_left_to_train_on(folder):
  with pytest.raises(UserError, match='all 3 lines .* lower data.heldout'):
    task_of(folder, lines(NAMES[:3]), 'train', share=0.9999999)
  assert not len(task_of(folder, lines(NAMES[:3]), share=1e-9))
