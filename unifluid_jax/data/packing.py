"""Packs laid-out examples into the rows of a batch."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple

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
  """Capacity of one row.

  Attributes:
    length: Slots; 'auto' sets it from the texts.
    text_targets: Text targets; 'auto' sets it from the texts.
    understanding_images: Understanding images.
    generated_images: Generated images.
    source_images: Source images of edits, with `model.source_tokens`.
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


class RowUse(NamedTuple):
  """A used part of a row; the fields are those of `RowCapacity`."""

  length: int
  text_targets: int
  understanding_images: int
  generated_images: int
  source_images: int


def pack(
  examples: Sequence[Slots],
  rows: int,
  row: RowCapacity,
  layout: LayoutConfig,
  pad_id: int,
) -> tuple[Batch, int]:
  """Packs examples into rows, the longest first, each into the first row with
  room for it.

  Examples of equal length keep their order. An example is never split.

  Args:
    examples: The examples of one window.
    rows: Number of rows, B.
    row: Capacity of a row.
    layout: Gives the sizes of the images.
    pad_id: Token id of slots without text.

  Returns:
    The rows, and the number of dropped examples, which fit no row. Examples
    that do not fit an empty row, see `check_fits`, are always dropped.
  """
  batch = _empty(rows, row, layout, pad_id)
  needs = np.array([needs_of(slots) for slots in examples])
  needs = needs.reshape(-1, len(RowUse._fields))
  capacity = [getattr(row, key) for key in RowUse._fields]
  left = np.tile(np.array(capacity), (rows, 1))
  used = np.zeros_like(left)
  segments = [0] * rows
  dropped = 0
  for i in np.argsort(-needs[:, 0], kind='stable').tolist():
    fits = (needs[i] <= left).all(1)
    r = int(fits.argmax())
    if not fits[r]:
      dropped += 1
      continue
    segments[r] += 1
    _write(batch, r, RowUse(*used[r]), segments[r], examples[i])
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
  """Lays out prefixes for sampling: one per row, padded on the left.

  Every prefix ends in the last slot. Targets are ignored; T and G are 0, U is
  the largest number of images of a prefix, and E is 1 or 0. The image that a
  source becomes starts after the row.

  Args:
    examples: Examples with the prefixes; an empty one is unconditional.
    tokenizer: Encodes the texts.
    layout: Sizes of the parts.
    length: Slots of a row; by default those of the longest prefix, rounded up
      to a multiple of `PREFIX_MULTIPLE`.
    generates_image: Whether to sample images, else texts.

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
    start = RowUse(length - len(prefix.kind), 0, 0, 0, 0)
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


def needs_of(slots: Slots) -> RowUse:
  """Returns the part of a row that an example needs."""
  return RowUse(
    length=len(slots.kind),
    text_targets=len(slots.text_slots),
    understanding_images=len(slots.understanding_slots),
    generated_images=len(slots.generated_slots),
    source_images=len(slots.source_slots),
  )


def check_fits(needs: RowUse, row: RowCapacity) -> None:
  """Rejects an example that does not fit an empty row.

  Raises:
    UserError: Names the key, the need and the capacity.
  """
  for key, need in needs._asdict().items():
    room = getattr(row, key)
    if need > room:
      raise UserError(
        f'an example needs {key} = {need}, but a row has {room}; '
        f'raise {key} of the rows'
      )


def _write(
  batch: Batch, r: int, start: RowUse, segment: int, slots: Slots
) -> None:
  """Writes an example into row r, starting at `start`."""
  needs = needs_of(slots)

  def span_of(key: str) -> tuple[int, slice]:
    first = getattr(start, key)
    return r, slice(first, first + getattr(needs, key))

  span, text = span_of('length'), span_of('text_targets')
  understanding = span_of('understanding_images')
  generated, source = span_of('generated_images'), span_of('source_images')
  batch.token_ids[span] = slots.token_ids
  batch.kind[span] = slots.kind
  batch.segment_ids[span] = segment
  batch.positions[span] = np.arange(len(slots.kind))
  batch.mask_ar[span] = slots.mask_ar
  batch.text_slots[text] = slots.text_slots + start.length
  batch.text_targets[text] = slots.text_targets
  batch.text_weights[text] = 1
  batch.understanding_images[understanding] = slots.understanding_images
  batch.understanding_slots[understanding] = (
    slots.understanding_slots + start.length
  )
  batch.source_images[source] = slots.source_images
  batch.source_slots[source] = slots.source_slots + start.length
  batch.generated_images[generated] = slots.generated_images
  batch.generated_slots[generated] = slots.generated_slots + start.length
