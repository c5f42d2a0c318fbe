"""Counts the tokens and slots that the texts of sources need."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask
from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.progress import track

_CHUNK = 4096
"""Records that are encoded in one call."""

_SAMPLES = 300
"""Examples of an embedded source that are counted."""


class Limits(NamedTuple):
  """What texts count against, or what they need of it.

  Attributes:
    max_text: Tokens of a prompt, and of a text target: `data.max_text`.
    length: Slots of an example: `data.row_capacity.length`.
    text_targets: Predictions of a text token: `data.row_capacity.text_targets`.
  """

  max_text: int
  length: int
  text_targets: int


NAMES = (
  'data.max_text',
  'data.row_capacity.length',
  'data.row_capacity.text_targets',
)
"""What a config calls each of `Limits`."""


class Counted(NamedTuple):
  """A record and what it needs.

  Attributes:
    place: Where the record is, for messages.
    needs: What the longest of its texts need.
    text: The longest of them.
  """

  place: str
  needs: Limits
  text: str


def count_texts(
  task: FolderTask,
  tokenizer: Tokenizer,
  layout: LayoutConfig,
  room: Limits,
) -> Iterator[Counted]:
  """Counts what the records of a folder need.

  Args:
    task: The records.
    tokenizer: Encodes the texts.
    layout: Sizes of the parts of an example.
    room: A record that cannot need more than this is left out; zeros for all.

  Yields:
    The records that need more, in order.
  """
  images = int(task.kind != 'text_to_image')
  left = []
  for i in range(len(task)):
    read, written = task.texts(i)
    most = needs_of_texts(
      _bound(read), _bound(written) if written else None, images, layout
    )
    if exceeds(most, room):
      left.append((i, read, written))
  starts = range(0, len(left), _CHUNK)
  for start in track(starts, f'parts of {_CHUNK} texts counted, number'):
    chunk = left[start : start + _CHUNK]
    texts = [t for _, read, written in chunk for t in (*read, *written)]
    counts = iter(zip(tokenizer.count_lines(texts), texts, strict=True))
    for i, read, written in chunk:
      longest = max(next(counts) for _ in read)
      target = max((next(counts) for _ in written), default=None)
      needs = needs_of_texts(longest[0], target and target[0], images, layout)
      if exceeds(needs, room):
        _, text = max(longest, target or longest)
        yield Counted(task[i]['place'], needs, text)


def needs_of_texts(
  read: float, written: float | None, images: int, layout: LayoutConfig
) -> Limits:
  """What an example needs.

  Args:
    read: Tokens of its prompt.
    written: Tokens of its text target; None if it writes an image.
    images: Images that it reads.
    layout: Sizes of the parts of an example.
  """
  # BOS and the separator besides.
  prefix = images * layout.understanding_tokens + read + 2
  needs: tuple[float, float, float]  # Infinite for a text without a bound.
  if written is None:
    needs = read, prefix + layout.generated_tokens, 0
  else:
    needs = max(read, written), prefix + written, written + 1
  return Limits(*needs)  # type: ignore[arg-type]


def sample_texts(
  name: str, task: EmojiTask, tokenizer: Tokenizer, layout: LayoutConfig
) -> Counted:
  """The most that examples of the embedded data need, of some of them."""
  rng = np.random.default_rng(0)
  needs, longest = [], (0, '')
  for i in rng.integers(len(task), size=_SAMPLES).tolist():
    example = task.build(task[i], rng, augment=True)
    texts = [part for part in example.prefix if isinstance(part, str)]
    images = len(example.prefix) - len(texts)
    written = example.target if isinstance(example.target, str) else None
    counts = tokenizer.count_lines([*texts, written or ''])
    read = sum(counts[:-1])
    needs.append(
      needs_of_texts(
        read, None if written is None else counts[-1], images, layout
      )
    )
    text = (read, ' '.join(texts)), (counts[-1], written or '')
    longest = max(longest, *text)
  return Counted(f'an example of {name}', elementwise_max(needs), longest[1])


def _bound(texts: Iterable[str]) -> float:
  """Most tokens of any of the texts: of ASCII, one a letter and one more."""
  return max(len(text) + 1 if text.isascii() else math.inf for text in texts)


def exceeds(needs: Limits, room: Limits) -> bool:
  """Whether any need is larger than the room for it."""
  return (
    needs.max_text > room.max_text
    or needs.length > room.length
    or needs.text_targets > room.text_targets
  )


def elementwise_max(needs: Iterable[Limits]) -> Limits:
  """Returns the elementwise maximum of needs."""
  return Limits(*map(max, zip(Limits(0, 0, 0), *needs, strict=True)))
