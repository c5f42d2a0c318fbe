"""Answers against the pixels and the metadata, found independently."""

import collections
import re

import numpy as np
import pytest

from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.concepts import concepts_of
from unifluid_jax.data.emoji.render import composite, render
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks import make_task

CONFIG = EmojiConfig('drawn_alike', ARTISTS)
SIDE = CONFIG.image_size
CANONICAL = {
  'name': r'what is this\?',
  'kind': r'what kind is it\?',
  'category': r'what category is it\?',
  'is_name': r'is this (?P<name>.+)\?',
  'is_category': r'is its category (?P<group>.+)\?',
  'artist': r'which style is it\?',
  'tone': r'which skin tone is it\?',
  'background': r'what color is the background\?',
  'color': r'what color is the (?P<thing>heart|circle)\?',
  'count': r'how many objects are there\?',
  'count_of': r'how many times does (?P<name>.+) appear\?',
  'is_present': r'is (?P<name>.+) in the picture\?',
  'at': r'what is at the (?P<row>top|bottom) (?P<column>left|right)\?',
  'where': r'where is (?P<name>.+)\?',
  'relation': r'what is (?P<side>left of|right of|above|below) (?P<other>.+)\?',
}


@pytest.fixture(scope='module')
def examples():
  """A part of the training records, by question, in canonical words."""
  task = make_task('vqa', CONFIG, 'train')
  by_kind = collections.defaultdict(list)
  for index in range(0, len(task), 4):
    example = task.build(task[index], np.random.default_rng(index), False)
    by_kind[example.facts['question']].append(example)
  return by_kind


def parse(kind, example):
  _, prompt = example.prefix
  match = re.fullmatch('answer en ' + CANONICAL[kind], prompt)
  assert match, prompt
  return match.groupdict()


def emoji_of(example):
  return load_catalog().emojis[example.facts['picture'].hex]


def objects_of(example):
  """Concepts by place (row, column), from the boxes' centers."""
  emojis = load_catalog().emojis
  objects = {}
  for placed in example.facts['scene'].objects:
    x, y = placed.left + placed.side / 2, placed.top + placed.side / 2
    place = (
      ('bottom' if y > SIDE / 2 else 'top'),
      ('right' if x > SIDE / 2 else 'left'),
    )
    assert place not in objects
    objects[place] = emojis[placed.hex].concept
  return objects


def test_questions_and_their_answers_are_balanced(examples):
  task = make_task('vqa', CONFIG, 'train')
  records = [task[index] for index in range(len(task))]
  kinds = collections.Counter(record.kind for record in records)
  assert kinds.keys() == examples.keys() == CANONICAL.keys()
  assert len(set(kinds.values())) == 1
  for kind in 'is_name', 'is_category', 'is_present':
    answers = [record.yes for record in records if record.kind == kind]
    assert answers.count(True) == answers.count(False)


@pytest.mark.parametrize(
  ('kind', 'field'),
  [
    ('name', 'concept'),
    ('kind', 'subgroup'),
    ('category', 'group'),
    ('tone', 'tone'),
  ],
)
def test_metadata(examples, kind, field):
  for example in examples[kind]:
    parse(kind, example)
    assert example.target == getattr(emoji_of(example), field)
    assert example.target == example.facts['answer']
    assert example.target


def test_artist_and_image(examples):
  for example in examples['artist']:
    hex = example.facts['picture'].hex
    image = composite(render(example.target, hex, SIDE), (255, 255, 255))
    np.testing.assert_array_equal(example.prefix[0], image)


@pytest.mark.parametrize(
  ('kind', 'word', 'field'),
  [('is_name', 'name', 'concept'), ('is_category', 'group', 'group')],
)
def test_yes_and_no(examples, kind, word, field):
  answers = collections.Counter()
  for example in examples[kind]:
    asked = parse(kind, example)[word]
    truth = asked == getattr(emoji_of(example), field)
    assert example.target == ('yes' if truth else 'no')
    answers[example.target] += 1
  assert min(answers['yes'], answers['no']) > 40


def test_background_is_what_the_pixels_show(examples):
  answers = set()
  for example in examples['background']:
    picture = example.facts['picture']
    rgba = render(picture.artist, picture.hex, SIDE)
    matching = [
      name
      for name, color in BACKGROUNDS.items()
      if np.array_equal(example.prefix[0], composite(rgba, color))
    ]
    assert matching == [example.target]
    answers.add(example.target)
  assert answers == set(BACKGROUNDS)


def test_color_is_the_name_s(examples):
  for example in examples['color']:
    thing = parse('color', example)['thing']
    assert f'{example.target} {thing}' == emoji_of(example).concept


def test_count_is_the_number_of_filled_quadrants(examples):
  answers = collections.Counter()
  for example in examples['count']:
    image = example.prefix[0]
    quadrants = image.reshape(2, SIDE // 2, 2, SIDE // 2, 3)
    filled = (quadrants != 255).any(axis=(1, 3, 4)).sum()
    assert example.target == str(filled)
    answers[example.target] += 1
  total = sum(answers.values())
  assert set(answers) == set('1234')
  assert max(answers.values()) / total < 0.4


def test_count_of_copies(examples):
  answers = set()
  for example in examples['count_of']:
    name = parse('count_of', example)['name']
    copies = list(objects_of(example).values()).count(name)
    assert example.target == str(copies)
    answers.add(copies)
  assert answers == {1, 2, 3, 4}


def test_presence(examples):
  answers = collections.Counter()
  for example in examples['is_present']:
    name = parse('is_present', example)['name']
    present = name in objects_of(example).values()
    assert example.target == ('yes' if present else 'no')
    answers[example.target] += 1
  assert min(answers['yes'], answers['no']) > 40


def test_places(examples):
  for example in examples['at']:
    words = parse('at', example)
    found = objects_of(example)[words['row'], words['column']]
    assert example.target == found
  for example in examples['where']:
    name = parse('where', example)['name']
    places = [p for p, other in objects_of(example).items() if other == name]
    assert [example.target.split()] == [list(place) for place in places]


def test_relations(examples):
  seen = set()
  for example in examples['relation']:
    words = parse('relation', example)
    objects = objects_of(example)
    (row, column) = next(
      place for place, name in objects.items() if name == words['other']
    )
    place = {
      'left of': (row, 'left'),
      'right of': (row, 'right'),
      'above': ('top', column),
      'below': ('bottom', column),
    }[words['side']]
    assert place != (row, column)
    assert example.target == objects[place]
    seen.add((words['side'], len(objects)))
  assert len(seen) == 4 * 3


def test_objects_lie_in_their_quadrants_and_are_drawn_there(examples):
  sides = set()
  for example in examples['at'] + examples['relation']:
    scene = example.facts['scene']
    image = example.prefix[0].copy()
    for placed in scene.objects:
      inside = (
        slice(placed.top, placed.top + placed.side),
        slice(placed.left, placed.left + placed.side),
      )
      assert placed.left // 16 == (placed.left + placed.side - 1) // 16
      assert placed.top // 16 == (placed.top + placed.side - 1) // 16
      rgba = render(scene.artist, placed.hex, placed.side)
      expected = composite(rgba, (255, 255, 255))
      np.testing.assert_array_equal(image[inside], expected)
      image[inside] = 255
      sides.add(placed.side)
    assert (image == 255).all()
  assert sides == {12, 13, 14, 15, 16}


def test_wrong_names_and_groups_cover_the_set(examples):
  asked = {parse('is_name', e)['name'] for e in examples['is_name']}
  assert asked <= {c.concept for c in concepts_of('drawn_alike')}
  assert len(asked) > 60
  groups = {parse('is_category', e)['group'] for e in examples['is_category']}
  assert groups == {c.group for c in concepts_of('drawn_alike')}


def test_wording_varies_in_training():
  task = make_task('vqa', CONFIG, 'train')
  questions = {
    task.build(task[0], np.random.default_rng(seed), True).prefix[1]
    for seed in range(20)
  }
  assert questions == {
    'answer en what is this?',
    'answer en what is in the picture?',
  }
