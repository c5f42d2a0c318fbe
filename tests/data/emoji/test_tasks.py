"""All tasks on the whole quickstart: leaks, determinism, texts."""

import pickle

import numpy as np
import pytest

from unifluid_jax.data import task as task_lib
from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing
from unifluid_jax.data.emoji.render import composite, render
from unifluid_jax.data.emoji.scenes import Scene
from unifluid_jax.data.emoji.splits import Cell, EmojiConfig, cells_of
from unifluid_jax.data.emoji.tasks import make_task
from unifluid_jax.data.emoji.tasks.companions import Companions
from unifluid_jax.data.emoji.tasks.emoji_task import Interleaved
from unifluid_jax.utils.errors import UserError

CONFIG = EmojiConfig('drawn_alike', ARTISTS)
NAMES = ('text_to_image', 'captioning', 'vqa', 'editing')


def build(task, index, augment=False, seed=0):
  rng = np.random.default_rng((seed, index))
  return task.build(task[index], rng, augment)


def cells_in(example):
  """Every (artist, concept) that an example shows."""
  emojis = load_catalog().emojis
  for fact in example.facts.values():
    if isinstance(fact, Drawing):
      yield Cell(fact.artist, emojis[fact.hex].base)
    elif isinstance(fact, Scene):
      for placed in fact.objects:
        yield Cell(fact.artist, emojis[placed.hex].base)


def cells_of_record(record):
  """Every (artist, concept) that a record names."""
  emojis = load_catalog().emojis
  if isinstance(record, Cell):
    yield record
  else:
    for field in record:
      if isinstance(field, Drawing):
        yield Cell(field.artist, emojis[field.hex].base)
      elif isinstance(field, Cell):
        yield field


def texts_in(example):
  return [p for p in (*example.prefix, example.target) if isinstance(p, str)]


def same(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip((*a.prefix, a.target), (*b.prefix, b.target), strict=True)
  )


@pytest.mark.parametrize('name', NAMES)
def test_training_shows_training_cells_only(name):
  """All records, and what some of them become."""
  task = make_task(name, CONFIG, 'train')
  train = set(cells_of(CONFIG, 'train'))
  assert not train & set(cells_of(CONFIG, 'cell'))
  seen = {c for i in range(len(task)) for c in cells_of_record(task[i])}
  assert seen == train
  for index in range(0, len(task), max(1, len(task) // 500)):
    example = build(task, index, augment=True)
    cells = set(cells_in(example))
    assert cells
    assert cells <= train
    for text in texts_in(example):
      assert text.isascii(), text
      assert text == text.lower(), text
      assert not set('{}') & set(text), text


def test_companions_are_training_cells():
  """What fills scenes is drawn from no other cell."""
  companions = Companions(CONFIG)
  fox = load_catalog().emojis['1f98a']
  train = set(cells_of(CONFIG, 'train'))
  rng = np.random.default_rng(0)
  drawn = set()
  for artist in {cell.artist for cell in train}:
    for _ in range(250):
      others = companions.draw(fox, artist, 4, rng)
      assert len({fox, *others}) == 5
      drawn |= {Cell(artist, other.base) for other in others}
  assert drawn == {cell for cell in train if cell.base != fox.base}


@pytest.mark.parametrize('name', NAMES)
def test_each_held_out_example_shows_a_held_out_cell(name):
  task = make_task(name, CONFIG, 'cell')
  held_out = set(cells_of(CONFIG, 'cell'))
  seen = {c for i in range(len(task)) for c in cells_of_record(task[i])}
  assert held_out <= seen
  for index in range(0, len(task), max(1, len(task) // 200)):
    assert set(cells_in(build(task, index))) & held_out


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('augment', [False, True])
def test_an_example_is_a_function_of_record_and_generator(name, augment):
  task = make_task(name, CONFIG, 'train')
  assert isinstance(task, task_lib.Task)
  copy = pickle.loads(pickle.dumps(task))
  differs = 0
  for index in range(0, len(task), len(task) // 30):
    assert pickle.loads(pickle.dumps(task[index])) == copy[index]
    example = build(task, index, augment)
    assert same(example, build(copy, index, augment))
    assert example.task == name
    differs += not same(example, build(task, index, augment, seed=1))
  assert differs > (5 if augment else 0)


@pytest.mark.parametrize('name', NAMES)
def test_another_size_gives_the_same_texts(name):
  small = make_task(name, CONFIG, 'train')
  big = EmojiConfig('drawn_alike', ARTISTS, image_size=64)
  large = make_task(name, big, 'train')
  for index in range(20):
    a, b = build(small, index), build(large, index)
    if 'scene' in a.facts or isinstance(a.facts.get('source'), Scene):
      continue  # places are drawn in pixels
    assert texts_in(a) == texts_in(b)
    images = [p for p in (*b.prefix, b.target) if not isinstance(p, str)]
    assert all(image.shape == (64, 64, 3) for image in images)
    assert all(image.dtype == np.uint8 for image in images)


def test_canonical_prompts():
  task = make_task('text_to_image', CONFIG, 'cell')
  emojis = load_catalog().emojis
  assert len(task) == 31
  for index in range(len(task)):
    example = build(task, index)
    picture = example.facts['picture']
    name = emojis[picture.hex].name
    assert example.prefix == (f'{name}, {picture.artist} style',)
    white = composite(render(picture.artist, picture.hex, 32), (255,) * 3)
    np.testing.assert_array_equal(example.target, white)


def test_a_training_prompt_says_what_is_drawn():
  task = make_task('text_to_image', CONFIG, 'train')
  emojis = load_catalog().emojis
  prompts = set()
  for index in range(len(task)):
    for seed in range(2):
      example = build(task, index, augment=True, seed=seed)
      (prompt,) = example.prefix
      picture = example.facts['picture']
      emoji = emojis[picture.hex]
      named = [c for c in BACKGROUNDS if f' {c} background' in prompt]
      color = BACKGROUNDS[max(named, key=len) if named else 'white']
      expected = composite(render(picture.artist, picture.hex, 32), color)
      np.testing.assert_array_equal(example.target, expected)
      assert picture.artist in prompt
      names = (emoji.concept, *emoji.alternative_names)
      assert any(name in prompt for name in names)
      assert emoji.tone in prompt
      prompts.add(prompt)
  # Canonical prompts on white alone would be one per image.
  assert len(prompts) > 400


def test_captions():
  task = make_task('captioning', CONFIG, 'train')
  emojis = load_catalog().emojis
  toned = 0
  for index in range(len(task)):
    example = build(task, index, augment=True)
    picture = example.facts['picture']
    assert example.prefix[1] == 'caption en'
    assert example.target == emojis[picture.hex].name
    references = example.facts['references']
    assert example.target in references
    assert f'a {picture.artist} emoji of {example.target}' in references
    if tone := emojis[picture.hex].tone:
      toned += 1
      assert all(f'{tone} skin tone' in text for text in references)
  assert toned > 20


def test_interleaved_takes_the_lists_in_turn():
  items = Interleaved({'a': range(5), 'none': [], 'b': range(10, 12)})
  taken = list(items)
  assert len(items) == len(taken) == 10
  assert sorted(taken[::2]) == [0, 1, 2, 3, 4]
  assert sorted(taken[1::2]) in ([10, 10, 10, 11, 11], [10, 10, 11, 11, 11])
  assert taken[1] != taken[3]


@pytest.mark.parametrize(
  ('name', 'kinds'),
  [
    ('vqa', ('category', 'count')),
    ('editing', ('flip',)),
    ('editing', ('tone', 'add')),
  ],
)
def test_some_kinds_of_a_task(name, kinds):
  task = make_task(name, CONFIG, 'train', kinds)
  assert {record.kind for record in task} == {*kinds}
  every = make_task(name, CONFIG, 'train')
  assert {record for record in every if record.kind in kinds} == {*task}


def test_a_wrong_kind_is_named():
  with pytest.raises(UserError, match="'vqa' has no kind 'flip'; it has name"):
    make_task('vqa', CONFIG, 'train', ('flip',))
  with pytest.raises(UserError, match="'captioning' has no kind 'x'.* none"):
    make_task('captioning', CONFIG, 'train', ('x',))


def test_a_wrong_task_or_split_is_named():
  with pytest.raises(UserError, match="'translation'.*captioning"):
    make_task('translation', CONFIG, 'train')
  with pytest.raises(UserError, match="'vqa' has no split 'pair'"):
    make_task('vqa', CONFIG, 'pair')
