"""Edits against what their instructions say, checked on pixels."""

import collections
import functools
import re

import numpy as np
import pytest

from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.render import composite, render
from unifluid_jax.data.emoji.splits import Cell, EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks import make_task
from unifluid_jax.data.emoji.tasks.object_edits import ObjectEdit, alternatives

CONFIG = EmojiConfig('drawn_alike', ARTISTS)
SIDE = CONFIG.image_size
QUADRANTS = {
  'top left': np.s_[:16, :16],
  'top right': np.s_[:16, 16:],
  'bottom left': np.s_[16:, :16],
  'bottom right': np.s_[16:, 16:],
}
WHITE = (255, 255, 255)


@pytest.fixture(scope='module')
def examples():
  """A part of the training records, by kind, in canonical words."""
  task = make_task('editing', CONFIG, 'train')
  by_kind = collections.defaultdict(list)
  for index in range(0, len(task), 67):
    example = task.build(task[index], np.random.default_rng(index), False)
    by_kind[example.facts['edit']].append(example)
  return by_kind


def instruction(example, pattern):
  match = re.fullmatch('edit ' + pattern, example.prefix[1])
  assert match, example.prefix[1]
  return match.groups()


def drawn(artist, hex, background='white'):
  return composite(render(artist, hex, SIDE), BACKGROUNDS[background])


HEX_OF = {emoji.name: hex for hex, emoji in load_catalog().emojis.items()}


def test_kinds_are_equally_frequent(examples):
  task = make_task('editing', CONFIG, 'train')
  counts = collections.Counter(task[i].kind for i in range(len(task)))
  assert counts.keys() == examples.keys()
  assert len(counts) == 8
  assert len({*counts.values()}) == 1
  exact = {kind for kind, group in examples.items() if group[0].facts['exact']}
  assert exact == examples.keys() - {'style', 'color'}


def test_tone(examples):
  emojis = load_catalog().emojis
  for example in examples['tone']:
    (tone,) = instruction(example, 'make the skin tone (.+)')
    source = emojis[example.facts['source'].hex]
    artist = example.facts['source'].artist
    name = source.concept
    if tone != 'yellow':
      name += f', {tone} skin tone'
    np.testing.assert_array_equal(example.target, drawn(artist, HEX_OF[name]))
    np.testing.assert_array_equal(example.prefix[0], drawn(artist, source.hex))
    assert not np.array_equal(example.prefix[0], example.target)


def test_background(examples):
  colors = set()
  for example in examples['background']:
    (color,) = instruction(example, 'make the background (.+)')
    source = example.facts['source']
    image = drawn(source.artist, source.hex, color)
    np.testing.assert_array_equal(example.target, image)
    assert not np.array_equal(example.prefix[0], example.target)
    colors.add(color)
  assert colors == set(BACKGROUNDS)


def test_flip(examples):
  for example in examples['flip']:
    instruction(example, 'flip it horizontally')
    flipped = np.fliplr(example.prefix[0])
    np.testing.assert_array_equal(example.target, flipped)
    assert example.target.flags.c_contiguous


def test_style(examples):
  pairs = set()
  for example in examples['style']:
    (artist,) = instruction(example, 'redraw it in the (.+) style')
    source = example.facts['source']
    np.testing.assert_array_equal(example.target, drawn(artist, source.hex))
    assert artist != source.artist
    pairs.add((source.artist, artist))
  assert len(pairs) == 12


def test_color(examples):
  names = {emoji.hex: emoji.name for emoji in load_catalog().emojis.values()}
  for example in examples['color']:
    thing, color = instruction(example, r'make the (\w+) (.+)')
    source = example.facts['source']
    image = drawn(source.artist, HEX_OF[f'{color} {thing}'])
    np.testing.assert_array_equal(example.target, image)
    assert names[source.hex].endswith(thing)
    assert names[source.hex] != f'{color} {thing}'


def changed_quadrants(example):
  source, target = example.prefix[0], example.target
  return [
    name
    for name, window in QUADRANTS.items()
    if (source[window] != target[window]).any()
  ]


def small(artist, name):
  return composite(render(artist, HEX_OF[name], SIDE // 2), WHITE)


def test_add(examples):
  for example in examples['add']:
    name, quadrant = instruction(
      example, 'add (.+) at the ((?:top|bottom) (?:left|right))'
    )
    window = QUADRANTS[quadrant]
    assert changed_quadrants(example) == [quadrant]
    assert (example.prefix[0][window] == 255).all()
    image = small(example.facts['target'].artist, name)
    np.testing.assert_array_equal(example.target[window], image)


def test_remove(examples):
  for example in examples['remove']:
    (name,) = instruction(example, 'remove (.+)')
    (quadrant,) = changed_quadrants(example)
    window = QUADRANTS[quadrant]
    assert (example.target[window] == 255).all()
    image = small(example.facts['source'].artist, name)
    np.testing.assert_array_equal(example.prefix[0][window], image)
    assert (example.target != 255).any()


def test_replace(examples):
  for example in examples['replace']:
    (words,) = instruction(example, 'replace (.+)')
    parts = words.split(' with ')
    splits = (
      (' with '.join(parts[:i]), ' with '.join(parts[i:]))
      for i in range(1, len(parts))
    )
    # 'smiling face with sunglasses' has the word in its name.
    ((other, name),) = (s for s in splits if HEX_OF.keys() >= set(s))
    (quadrant,) = changed_quadrants(example)
    window = QUADRANTS[quadrant]
    artist = example.facts['source'].artist
    before, after = example.prefix[0][window], example.target[window]
    np.testing.assert_array_equal(before, small(artist, other))
    np.testing.assert_array_equal(after, small(artist, name))


def test_augmentation_keeps_source_and_target_on_one_background():
  task = make_task('editing', CONFIG, 'train')
  backgrounds = set()
  for index in range(200):
    example = task.build(task[index], np.random.default_rng(index), True)
    facts = example.facts
    if facts['edit'] != 'background':
      assert facts['source'].background == facts['target'].background
      backgrounds.add(facts['source'].background)
  assert backgrounds == set(BACKGROUNDS)


@functools.cache
def object_edits(split):
  task = make_task('editing', CONFIG, split)
  records = (task[index] for index in range(len(task)))
  return {r for r in records if isinstance(r, ObjectEdit)}


def test_all_tones_are_asked_for_from_all_others():
  emojis = load_catalog().emojis
  pairs = {
    (emojis[source.hex].tone, emojis[target.hex].tone)
    for kind, source, target in object_edits('train')
    if kind == 'tone'
  }
  assert len(pairs) == 6 * 5


def test_held_out_pairs_are_new_pairs_of_known_images_and_edits():
  emojis = load_catalog().emojis

  def pairs(records):
    """(image, (kind, what the instruction leaves open))."""
    for kind, source, target in records:
      if kind in ('tone', 'background', 'flip'):
        tone = emojis[target.hex].tone if kind == 'tone' else ''
        color = target.background if kind == 'background' else ''
        yield (source.artist, source.hex), (kind, tone, color)

  held_out = set(pairs(object_edits('pair')))
  train = set(pairs(object_edits('train')))
  assert not held_out & train
  share = len(held_out) / len(held_out | train)
  assert share == pytest.approx(0.1, abs=0.01)
  assert {image for image, _ in held_out} <= {image for image, _ in train}
  assert {edit for _, edit in held_out} <= {edit for _, edit in train}
  assert {kind for _, (kind, *_) in held_out} == {'tone', 'background', 'flip'}


def test_no_training_record_reads_or_writes_a_held_out_cell():
  emojis = load_catalog().emojis
  train = set(cells_of(CONFIG, 'train'))
  for _, *pictures in object_edits('train') | object_edits('pair'):
    for picture in pictures:
      assert Cell(picture.artist, emojis[picture.hex].base) in train


def test_held_out_cells_are_written():
  emojis = load_catalog().emojis
  held_out = set(cells_of(CONFIG, 'cell'))
  kinds = set()
  for kind, _, target in object_edits('cell'):
    assert Cell(target.artist, emojis[target.hex].base) in held_out
    kinds.add(kind)
  assert len(kinds) == 5


def test_an_edit_s_target_is_among_the_alternatives():
  for kind, source, target in sorted(object_edits('train'))[::50]:
    assert target in alternatives(kind, source)
    assert kind == 'background' or source not in alternatives(kind, source)
