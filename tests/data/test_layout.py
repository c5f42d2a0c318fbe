"""The layout of an example, against pictures drawn by hand."""

import dataclasses

import numpy as np
import pytest

from unifluid_jax.data.example import Example
from unifluid_jax.data.images import fit
from unifluid_jax.data.layout import drop_condition, lay_out, lay_out_prefix
from unifluid_jax.utils.errors import UserError

READ = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
READ_TOO = READ + 100
WRITTEN = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

# tokens: b BOS, s separator, i BOI, e EOS, letters themselves, . no text
# kinds: T text, U image that is read, G image that is written
PICTURES = {
  'text to image': (
    Example(('ac',), WRITTEN),
    'b a c s i . . .',
    'T T T T G G G G',
    '0 0 0 0 1 1 1 1',
    {},
    [],
    [4],
  ),
  'caption': (
    Example((READ, 'c'), 'fo'),
    '. . b c s f o',
    'U U T T T T T',
    '0 0 0 0 0 1 1',
    {4: 'f', 5: 'o', 6: 'e'},
    [0],
    [],
  ),
  'caption without a prompt': (
    Example((READ,), 'f'),
    '. . b s f',
    'U U T T T',
    '0 0 0 0 1',
    {3: 'f', 4: 'e'},
    [0],
    [],
  ),
  'edit': (
    Example((READ, 'a'), WRITTEN),
    '. . b a s i . . .',
    'U U T T T G G G G',
    '0 0 0 0 0 1 1 1 1',
    {},
    [0],
    [5],
  ),
  'text between images': (
    Example(('a', READ, 'c', READ_TOO), 'f'),
    'b a . . c . . s f',
    'T T U U T U U T T',
    '0 0 0 0 0 0 0 0 1',
    {7: 'f', 8: 'e'},
    [2, 5],
    [],
  ),
  'unconditional image': (
    Example((), WRITTEN),
    'b s i . . .',
    'T T G G G G',
    '0 0 1 1 1 1',
    {},
    [],
    [2],
  ),
  'empty answer': (
    Example(('a',), ''),
    'b a s',
    'T T T',
    '0 0 0',
    {2: 'e'},
    [],
    [],
  ),
}


def ids_of(picture, tokenizer, *, e_is_eos=False):
  """Reads a picture's tokens; 'e' is EOS among targets only."""
  special = {
    '.': tokenizer.pad_id,
    'b': tokenizer.bos_id,
    's': tokenizer.separator_id,
    'i': tokenizer.boi_id,
  } | ({'e': tokenizer.eos_id} if e_is_eos else {})
  return [
    special[c] if c in special else tokenizer.encode(c)[0] for c in picture
  ]


@pytest.mark.parametrize('name', PICTURES)
def test_picture(name, tokenizer, layout):
  example, tokens, kinds, mask_ar, targets, read, written = PICTURES[name]
  slots = lay_out(example, tokenizer, layout)
  assert slots.token_ids.tolist() == ids_of(tokens.split(), tokenizer)
  assert [int(k) for k in slots.kind] == [
    {'T': 1, 'U': 2, 'G': 3}[k] for k in kinds.split()
  ]
  assert slots.mask_ar.tolist() == [int(bit) for bit in mask_ar.split()]
  assert slots.text_slots.tolist() == list(targets)
  assert slots.text_targets.tolist() == ids_of(
    targets.values(), tokenizer, e_is_eos=True
  )
  assert slots.understanding_slots.tolist() == read
  assert slots.generated_slots.tolist() == written
  images = [part for part in example.prefix if not isinstance(part, str)]
  assert slots.understanding_images.shape == (len(read), 2, 2, 3)
  assert slots.generated_images.shape == (len(written), 4, 4, 3)
  for got, image in zip(slots.understanding_images, images, strict=True):
    np.testing.assert_array_equal(got, image)
  if written:
    np.testing.assert_array_equal(slots.generated_images[0], WRITTEN)


@pytest.mark.parametrize('name', PICTURES)
def test_prefix_is_the_beginning_of_the_whole(name, tokenizer, layout):
  example = PICTURES[name][0]
  generates_image = not isinstance(example.target, str)
  prefix = lay_out_prefix(example, tokenizer, layout, generates_image)
  whole = lay_out(example, tokenizer, layout)
  count = len(prefix.kind)
  assert prefix.token_ids[-1] == tokenizer.separator_id
  np.testing.assert_array_equal(prefix.token_ids, whole.token_ids[:count])
  np.testing.assert_array_equal(prefix.kind, whole.kind[:count])
  assert not prefix.mask_ar.any()
  assert whole.mask_ar[count:].all()


def test_source_tokens(tokenizer, layout):
  """An image that is edited is read twice; one that is described, once."""
  edit = Example((READ, 'a'), WRITTEN)
  slots = lay_out(edit, tokenizer, layout)
  assert [int(k) for k in slots.kind] == [2] * 2 + [1] * 3 + [3] * 4
  assert slots.understanding_slots.tolist() == [0]
  assert slots.source_slots.tolist() == slots.generated_slots.tolist() == [5]
  assert slots.source_images.shape == (1, 4, 4, 3)
  np.testing.assert_array_equal(slots.understanding_images[0], READ)
  np.testing.assert_array_equal(slots.source_images[0], fit(READ, 4))
  described = lay_out(Example((READ, 'a'), 'f'), tokenizer, layout)
  assert described.source_images.shape == (0, 4, 4, 3)
  assert not described.source_slots.size
  unread = dataclasses.replace(layout, source_tokens=False)
  assert not lay_out(edit, tokenizer, unread).source_slots.size


def test_the_last_image_is_the_source(tokenizer, layout):
  style = np.full_like(READ, 9)
  slots = lay_out(Example((style, READ, 'a'), WRITTEN), tokenizer, layout)
  assert slots.understanding_images.shape[0] == 2
  assert slots.source_images.shape[0] == 1
  np.testing.assert_array_equal(slots.source_images[0], fit(READ, 4))


def test_drop_prefix_at_its_rate():
  example = Example((READ, 'a'), WRITTEN, task='edit', facts={'x': 1})
  rng = np.random.default_rng(0)
  dropped = [not drop_condition(example, 0.1, rng).prefix for _ in range(4000)]
  assert np.mean(dropped) == pytest.approx(0.1, abs=0.02)
  kept = dataclasses.replace(example, prefix=())
  assert drop_condition(example, 1.0, rng).facts == kept.facts
  assert drop_condition(example, 0.0, rng) is example


def test_drop_prefix_leaves_text_targets_alone():
  example = Example((READ, 'a'), 'f')
  assert drop_condition(example, 1.0, np.random.default_rng(0)) is example


@pytest.mark.parametrize(
  'example',
  [
    Example(('acacaca',), 'f'),
    Example(('acac', 'aca'), 'f'),
    Example(('a',), 'acacaca'),
  ],
)
def test_a_text_that_is_too_long(example, tokenizer, layout):
  match = "'.*aca' takes 7 tokens, more than max_text = 6"
  with pytest.raises(UserError, match=match):
    lay_out(example, tokenizer, layout)


def test_a_text_of_just_the_limit(tokenizer, layout):
  slots = lay_out(Example(('acacac',), 'acacac'), tokenizer, layout)
  assert len(slots.kind) == 1 + 6 + 1 + 6


def test_images_are_fit_to_the_sizes_of_the_layout(tokenizer, layout):
  halves = np.zeros((8, 16, 3), np.uint8)
  halves[:, 8:] = 200
  slots = lay_out(Example((halves,), halves), tokenizer, layout)
  read, written = slots.understanding_images, slots.generated_images
  assert read.shape == (1, 2, 2, 3)
  assert written.shape == (1, 4, 4, 3)
  for image in (read[0], written[0]):
    middle = image.shape[0] // 2
    assert (image[:, : middle - 1] < 10).all()
    assert (image[:, -1] > 180).all()


@pytest.mark.parametrize(
  'image', [WRITTEN / 255, WRITTEN[..., :1], WRITTEN[..., 0]]
)
def test_what_is_no_rgb_image(image, tokenizer, layout):
  with pytest.raises(UserError, match="task 't' gave an image of shape"):
    lay_out(Example((image,), 'f', task='t'), tokenizer, layout)


def test_a_very_long_text_is_not_told_whole(tokenizer, layout):
  with pytest.raises(UserError, match='takes 50000 tokens') as error:
    lay_out(Example(('a' * 50_000,), 'f'), tokenizer, layout)
  assert len(str(error.value)) < 400


def test_a_line_break_is_no_separator(tokenizer, layout):
  broken = Example((READ, 'a\r\nc\nb'), 'f\no')
  plain = Example((READ, 'a c b'), 'f o')
  slots, wanted = (lay_out(e, tokenizer, layout) for e in (broken, plain))
  assert slots.token_ids.tolist() == wanted.token_ids.tolist()
  assert slots.token_ids.tolist().count(tokenizer.separator_id) == 1
