"""Packs laid-out examples into the rows of a batch."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np

from unifluid_jax.batch import Batch, Kind
from unifluid_jax.data.example import Example
from unifluid_jax.data.layout import LayoutConfig, Slots, lay_out_prefix
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import UserError, check_least, check_most

# Prefix lengths are rounded up to this, so that few lengths get compiled.
PREFIX_MULTIPLE = 8


AUTO = 'auto'
"""Stands in a config for a number that is set from the data."""

AutoInt = Annotated[int, AUTO]
"""An int, or AUTO in a config: `training.text_limits` replaces AUTO before
anything counts with it."""


@dataclasses.dataclass(frozen=True)
class RowCapacity:
  """What one row has room for.

  Attributes:
    length: Slots; 'auto' to set it from the texts.
    text_targets: Predictions of a text token; likewise.
    understanding_images: Images that are read.
    generated_images: Images that are written.
    source_images: Images that are edited, where the VAE reads them too.
  """

  length: AutoInt
  text_targets: AutoInt
  understanding_images: int
  generated_images: int
  source_images: int = 0

  def __post_init__(self):
    images = ('understanding_images', 'generated_images', 'source_images')
    check_least('data.row_capacity', self, 0, *images)
    check_most('data.row_capacity', self, 2**12, *images)
    if self.length != AUTO:
      check_least('data.row_capacity', self, 1, 'length')
      check_most('data.row_capacity', self, 2**20, 'length')
    if self.text_targets != AUTO:
      check_least('data.row_capacity', self, 0, 'text_targets')
      check_most('data.row_capacity', self, 2**20, 'text_targets')


def pack(
  examples: Sequence[Slots],
  rows: int,
  row: RowCapacity,
  layout: LayoutConfig,
  pad_id: int,
) -> tuple[Batch, int]:
  """Packs examples into rows, the longest first, each into the first row with
  room for it.

  The result depends on nothing but the arguments. Examples of equal length
  keep their order. An example is never split.

  Args:
    examples: The examples of one window.
    rows: Number of rows, B.
    row: What a row has room for.
    layout: Gives the sizes of the images.
    pad_id: Token id of slots without text.

  Returns:
    The rows, and the number of examples that no row had room for. One that
    would not fit an empty row, see `check_fits`, is always among them.
  """
  batch = _empty(rows, row, layout, pad_id)
  needs = np.array([needs_of(slots) for slots in examples]).reshape(-1, 5)
  left = np.tile(np.array(dataclasses.astuple(row)), (rows, 1))
  used = np.zeros((rows, 5), np.int64)
  segments = [0] * rows
  dropped = 0
  for i in np.argsort(-needs[:, 0], kind='stable').tolist():
    fits = (needs[i] <= left).all(1)
    r = int(fits.argmax())
    if not fits[r]:
      dropped += 1
      continue
    segments[r] += 1
    _write(batch, r, used[r], segments[r], examples[i])
    used[r] += needs[i]
    left[r] -= needs[i]
  return batch, dropped


def prefix_batch(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  layout: LayoutConfig,
  length: int | None = None,
  *,
  generates_image: bool,
) -> Batch:
  """Lays out prefixes for sampling: one a row, padded on the left.

  Every prefix ends in the last slot, where the sampler goes on. Targets are
  ignored; T and G are 0, U is the largest number of images in a prefix, E is 1
  or 0, and the image that a source becomes begins after the row.

  Args:
    examples: What to answer; an empty prefix gives the unconditional one.
    tokenizer: Encodes the texts.
    layout: Sizes of the parts.
    length: Slots of a row. By default those of the longest prefix, rounded up
      to a multiple of `PREFIX_MULTIPLE`.
    generates_image: Whether images shall be written, or else texts.

  Raises:
    UserError: A prefix is longer than `length`.
  """
  prefixes = [
    lay_out_prefix(e, tokenizer, layout, generates_image) for e in examples
  ]
  longest = max(len(p.kind) for p in prefixes)
  if length is None:
    length = -(-longest // PREFIX_MULTIPLE) * PREFIX_MULTIPLE
  if length < longest:
    raise UserError(
      f'a prefix takes {longest} slots, more than the {length} of a row; '
      'shorten the prompt or raise the length'
    )
  images = max(len(p.understanding_slots) for p in prefixes)
  sources = max(len(p.source_slots) for p in prefixes)
  row = RowCapacity(length, 0, images, 0, sources)
  batch = _empty(len(prefixes), row, layout, tokenizer.pad_id)
  for r, prefix in enumerate(prefixes):
    start = np.array([length - len(prefix.kind), 0, 0, 0, 0])
    _write(batch, r, start, 1, prefix)
  return batch


def _empty(
  rows: int, row: RowCapacity, layout: LayoutConfig, pad_id: int
) -> Batch:
  """Rows of padding."""

  def full(columns: int, value: int) -> np.ndarray:
    return np.full((rows, columns), value, np.int32)

  def images(columns: int, size: int) -> np.ndarray:
    return np.zeros((rows, columns, size, size, 3), np.uint8)

  return Batch(
    token_ids=full(row.length, pad_id),
    kind=full(row.length, Kind.PAD),
    segment_ids=full(row.length, 0),
    positions=full(row.length, 0),
    mask_ar=full(row.length, 0),
    text_slots=full(row.text_targets, 0),
    text_targets=full(row.text_targets, 0),
    text_weights=np.zeros((rows, row.text_targets), np.float32),
    understanding_images=images(
      row.understanding_images, layout.understanding_size
    ),
    understanding_slots=full(row.understanding_images, -1),
    source_images=images(row.source_images, layout.generated_size),
    source_slots=full(row.source_images, -1),
    generated_images=images(row.generated_images, layout.generated_size),
    generated_slots=full(row.generated_images, -1),
  )


def needs_of(slots: Slots) -> tuple[int, int, int, int, int]:
  """What an example takes of a row, in the order of `RowCapacity`'s fields."""
  return (
    len(slots.kind),
    len(slots.text_slots),
    len(slots.understanding_slots),
    len(slots.generated_slots),
    len(slots.source_slots),
  )


def check_fits(needs: Iterable[float], row: RowCapacity) -> None:
  """Rejects an example that would not fit an empty row.

  Args:
    needs: What it takes of a row, in the order of `RowCapacity`'s fields.
    row: What a row has room for.

  Raises:
    UserError: With the numbers.
  """
  for field, need in zip(dataclasses.fields(row), needs, strict=True):
    room = getattr(row, field.name)
    if need > room:
      raise UserError(
        f'an example needs {field.name} = {need}, but a row has {room}; '
        f'raise {field.name} of the rows'
      )


def _write(
  batch: Batch, r: int, start: np.ndarray, segment: int, slots: Slots
) -> None:
  """Writes an example into row r, starting at `start`."""
  stop = start + needs_of(slots)
  span, text, read, written, edited = (
    (r, slice(*ends)) for ends in zip(start, stop, strict=True)
  )
  batch.token_ids[span] = slots.token_ids
  batch.kind[span] = slots.kind
  batch.segment_ids[span] = segment
  batch.positions[span] = np.arange(len(slots.kind))
  batch.mask_ar[span] = slots.mask_ar
  batch.text_slots[text] = slots.text_slots + start[0]
  batch.text_targets[text] = slots.text_targets
  batch.text_weights[text] = 1
  batch.understanding_images[read] = slots.understanding_images
  batch.understanding_slots[read] = slots.understanding_slots + start[0]
  batch.source_images[edited] = slots.source_images
  batch.source_slots[edited] = slots.source_slots + start[0]
  batch.generated_images[written] = slots.generated_images
  batch.generated_slots[written] = slots.generated_slots + start[0]
