"""Packing: what ends up where, what is dropped, and rows of prefixes."""

import dataclasses
import functools

import numpy as np
import pytest

from unifluid_jax.batch import Batch, Kind
from unifluid_jax.data.example import Example
from unifluid_jax.data.layout import lay_out, lay_out_prefix
from unifluid_jax.data.packing import (
  RowCapacity,
  check_fits,
  needs_of,
  pack,
  prefix_batch,
)
from unifluid_jax.utils.errors import UserError

ROW = RowCapacity(
  length=16,
  text_targets=5,
  understanding_images=2,
  generated_images=2,
  source_images=1,
)


def image(value: int, size: int) -> np.ndarray:
  return np.full((size, size, 3), value, np.uint8)


def random_examples(count: int, seed: int) -> list[Example]:
  """Examples of all kinds; image values and facts tell them apart."""
  rng = np.random.default_rng(seed)
  examples = []
  for i in range(count):
    text = 'abcdef'[: rng.integers(1, 6)]
    read, written = image(2 * i, 2), image(2 * i + 1, 4)
    examples.append(
      [
        Example((text,), written),
        Example((read, 'a'), text[:4]),
        Example((read, text), written),
        Example((text,), text[:2]),
      ][rng.integers(4)]
    )
  return examples


def example_of_segment(batch: Batch, r: int, segment: int) -> dict:
  """Reads one packed example back, in slots of its own."""
  inside = np.flatnonzero(batch.segment_ids[r] == segment)
  start = int(inside[0])
  assert (np.diff(inside) == 1).all(), 'an example is one run of slots'

  def mine(slots):
    return np.isin(slots, inside)

  text = (batch.text_weights[r] > 0) & mine(batch.text_slots[r])
  read = mine(batch.understanding_slots[r])
  written = mine(batch.generated_slots[r])
  edited = mine(batch.source_slots[r])
  np.testing.assert_array_equal(
    batch.positions[r, inside], np.arange(len(inside))
  )
  return {
    'token_ids': batch.token_ids[r, inside],
    'kind': batch.kind[r, inside],
    'mask_ar': batch.mask_ar[r, inside],
    'text_slots': batch.text_slots[r, text] - start,
    'text_targets': batch.text_targets[r, text],
    'understanding_images': batch.understanding_images[r, read],
    'understanding_slots': batch.understanding_slots[r, read] - start,
    'source_images': batch.source_images[r, edited],
    'source_slots': batch.source_slots[r, edited] - start,
    'generated_images': batch.generated_images[r, written],
    'generated_slots': batch.generated_slots[r, written] - start,
  }


def key(slots: dict) -> tuple:
  return tuple(
    (name, value.shape, value.tobytes()) for name, value in slots.items()
  )


@pytest.mark.parametrize(('count', 'rows'), [(24, 24), (24, 6), (0, 2)])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_every_example_is_packed_whole_or_dropped(
  count, rows, seed, tokenizer, layout
):
  examples = [
    lay_out(e, tokenizer, layout) for e in random_examples(count, seed)
  ]
  batch, dropped = pack(examples, rows, ROW, layout, tokenizer.pad_id)
  found = [
    key(example_of_segment(batch, r, segment))
    for r in range(rows)
    for segment in range(1, batch.segment_ids[r].max() + 1)
  ]
  offered = [key(e._asdict()) for e in examples]
  for one in found:
    offered.remove(one)
  assert len(offered) == dropped
  assert len(found) + dropped == count
  if rows >= count:
    assert dropped == 0
  if (count, rows) == (24, 6):
    assert dropped > 0


def test_what_is_unused_is_empty(tokenizer, layout):
  examples = [lay_out(e, tokenizer, layout) for e in random_examples(6, 3)]
  batch, _ = pack(examples, 12, ROW, layout, pad_id=7)
  padding = batch.segment_ids == 0
  assert padding.any()
  assert (batch.token_ids[padding] == 7).all()
  for name in ('kind', 'positions', 'mask_ar'):
    assert not getattr(batch, name)[padding].any(), name
  unused = batch.text_weights == 0
  assert not batch.text_slots[unused].any()
  assert not batch.text_targets[unused].any()
  assert set(np.unique(batch.text_weights)) <= {0.0, 1.0}
  for images, slots in (
    (batch.understanding_images, batch.understanding_slots),
    (batch.generated_images, batch.generated_slots),
    (batch.source_images, batch.source_slots),
  ):
    assert ((slots >= 0) | (slots == -1)).all()
    assert not images[slots == -1].any()


def test_shapes_and_types(tokenizer, layout):
  batch, _ = pack([], 3, ROW, layout, tokenizer.pad_id)
  shapes = {name: leaf.shape for name, leaf in batch._asdict().items()}
  row = (3, 16)
  assert shapes == {
    **dict.fromkeys(
      ('token_ids', 'kind', 'segment_ids', 'positions', 'mask_ar'), row
    ),
    **dict.fromkeys(('text_slots', 'text_targets', 'text_weights'), (3, 5)),
    'understanding_images': (3, 2, 2, 2, 3),
    'understanding_slots': (3, 2),
    'generated_images': (3, 2, 4, 4, 3),
    'generated_slots': (3, 2),
    'source_images': (3, 1, 4, 4, 3),
    'source_slots': (3, 1),
  }
  types = {str(leaf.dtype) for leaf in batch}
  assert types == {'int32', 'uint8', 'float32'}
  assert batch.text_weights.dtype == np.float32


def test_examples_of_equal_length_keep_their_order(tokenizer, layout):
  pairs = [a + b for a in 'abcdef' for b in 'abcdef']
  prompts = [p if i % 2 else p + 'g' for i, p in enumerate(pairs)]
  examples = [lay_out(Example((p,), 'f'), tokenizer, layout) for p in prompts]
  batch, dropped = pack(examples, 18, ROW, layout, tokenizer.pad_id)
  in_pair = (batch.positions == 1) | (batch.positions == 2)
  text = tokenizer.decode(batch.token_ids[in_pair])
  assert text == ''.join(pairs[::2] + pairs[1::2]), 'two a row'
  assert dropped == 0


def test_first_fit_decreasing(tokenizer, layout):
  # Lengths 9, 5, 9, 7, 5: rows of 16 take 9 + 7, 9 + 5 and 5.
  prompts = ['abcdef', 'ab', 'ghijac', 'cdef', 'gh']
  examples = [lay_out(Example((p,), 'f'), tokenizer, layout) for p in prompts]
  batch, dropped = pack(examples, 3, ROW, layout, tokenizer.pad_id)
  second_slots = (batch.positions == 1) & (batch.segment_ids > 0)
  first = [
    tokenizer.decode(batch.token_ids[r, second_slots[r]]) for r in range(3)
  ]
  assert first == ['ac', 'ga', 'g']
  assert dropped == 0
  assert batch.segment_ids[0].tolist() == [1] * 9 + [2] * 7


@pytest.mark.parametrize(
  ('example', 'per_row'),
  [
    (Example(('a',), 'f'), 2),  # 2 targets each of 5; 4 slots each of 16
    (Example((image(1, 2), image(2, 2)), 'f'), 1),  # 2 images each of 2
    (Example(('a',), image(1, 4)), 2),  # 7 slots each of 16
  ],
)
def test_maxima_of_a_row(example, per_row, tokenizer, layout):
  examples = [lay_out(example, tokenizer, layout)] * 7
  batch, dropped = pack(examples, 2, ROW, layout, tokenizer.pad_id)
  assert batch.segment_ids.max(1).tolist() == [per_row, per_row]
  assert dropped == 7 - 2 * per_row


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    (RowCapacity(6, 5, 2, 2), 'length = 7, but a row has 6'),
    (RowCapacity(16, 5, 0, 2), 'understanding_images = 1, but a row has 0'),
    (RowCapacity(16, 2, 1, 0), 'text_targets = 3, but a row has 2'),
  ],
)
def test_an_example_that_fits_no_row(row, message, tokenizer, layout):
  slots = lay_out(Example((image(1, 2), 'c'), 'ab'), tokenizer, layout)
  with pytest.raises(UserError, match=message):
    check_fits(needs_of(slots), row)
  _, dropped = pack([slots], 2, row, layout, tokenizer.pad_id)
  assert dropped == 1


def test_the_picture_of_the_batch(tokenizer, layout):
  """The row drawn in the docstring of unifluid_jax/batch.py."""
  caption = lay_out(Example((image(1, 2), 'c'), 'fo'), tokenizer, layout)
  drawing = lay_out(Example(('f',), image(2, 4)), tokenizer, layout)
  batch, _ = pack([caption, drawing], 1, ROW, layout, tokenizer.pad_id)
  b, s, e, i = (
    tokenizer.bos_id,
    tokenizer.separator_id,
    tokenizer.eos_id,
    tokenizer.boi_id,
  )
  c, f, o = tokenizer.encode('cfo')
  t, u, g = Kind.TEXT, Kind.UNDERSTANDING, Kind.GENERATED
  pad = tokenizer.pad_id
  expected = {
    'token_ids': [pad, pad, b, c, s, f, o, b, f, s, i] + [pad] * 5,
    'kind': [u, u, t, t, t, t, t, t, t, t, g, g, g, g, 0, 0],
    'segment_ids': [1] * 7 + [2] * 7 + [0, 0],
    'positions': [*range(7), *range(7), 0, 0],
    'mask_ar': [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0],
    'text_slots': [4, 5, 6, 0, 0],
    'text_targets': [f, o, e, 0, 0],
    'text_weights': [1, 1, 1, 0, 0],
    'understanding_slots': [0, -1],
    'generated_slots': [10, -1],
  }
  for name, row in expected.items():
    assert getattr(batch, name)[0].tolist() == row, name


def test_prefixes_end_in_the_last_slot(tokenizer, layout):
  examples = [
    Example((image(5, 2), 'abc'), 'ignored'),
    Example((), image(1, 4)),
    Example(('abcdef', image(6, 2), image(7, 2)), ''),
  ]
  batch = prefix_batch(examples, tokenizer, layout, generates_image=False)
  assert batch.token_ids.shape == (3, 16), '12 slots, rounded up'
  assert batch.text_slots.shape == batch.text_weights.shape == (3, 0)
  assert batch.generated_images.shape == (3, 0, 4, 4, 3)
  assert batch.understanding_slots.tolist() == [[9, -1], [-1, -1], [11, 13]]
  assert (batch.token_ids[:, -1] == tokenizer.separator_id).all()
  for r, example in enumerate(examples):
    prefix = lay_out_prefix(example, tokenizer, layout, generates_image=False)
    count = len(prefix.kind)
    np.testing.assert_array_equal(batch.segment_ids[r, :-count], 0)
    np.testing.assert_array_equal(batch.kind[r, :-count], Kind.PAD)
    got = example_of_segment(batch, r, 1)
    assert key(got) == key(prefix._asdict())


def test_length_of_prefixes(tokenizer, layout):
  examples = [Example(('abcdef',), ''), Example(('a',), '')]
  lengths = functools.partial(
    prefix_batch, examples, tokenizer, layout, generates_image=False
  )
  assert lengths().kind.shape == (2, 8)
  assert lengths(11).kind.shape == (2, 11)
  with pytest.raises(UserError, match='takes 8 slots, more than the 7'):
    lengths(7)


def test_sources_of_edits(tokenizer, layout):
  """Prefixes for images carry the sources' pixels, also when packed."""
  examples = [
    Example((image(5, 2), 'abc'), image(1, 4)),
    Example((), image(1, 4)),
  ]
  prefixes = prefix_batch(examples, tokenizer, layout, generates_image=True)
  assert prefixes.kind.shape == (2, 8), '7 slots, rounded up'
  assert prefixes.source_slots.tolist() == [[8], [-1]]
  assert (prefixes.source_images[0] == 5).all()
  row = dataclasses.replace(ROW, length=32)
  slots = [lay_out(e, tokenizer, layout) for e in examples]
  batch, dropped = pack(slots, 1, row, layout, tokenizer.pad_id)
  assert not dropped
  assert batch.source_slots[0, 0] == batch.generated_slots[0, 0] == 7
  assert (batch.source_images[0, 0] == 5).all()
  none = dataclasses.replace(row, source_images=0)
  with pytest.raises(UserError, match='source_images = 1, but a row has 0'):
    check_fits(needs_of(slots[0]), none)
