"""Whether a row has room for every example, asked before training starts.

Training comes to a record after hours or days. The texts of a folder are in
memory at the start; of other data the longest ones that the config allows are
what there must be room for.
"""

import dataclasses
import math
from collections.abc import Iterable

from unifluid_jax.data.layout import LayoutConfig, check_length
from unifluid_jax.data.packing import RowConfig, check_fits
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError
from unifluid_jax.progress import track


def check_texts(
  task: FolderTask, tokenizer: Tokenizer, layout: LayoutConfig, row: RowConfig
) -> None:
  """Refuses the first record whose texts are too long.

  Args:
    task: The records.
    tokenizer: Encodes the texts.
    layout: Sizes of the parts of an example.
    row: What a row has room for.

  Raises:
    UserError: With the place of the record, and the numbers.
  """

  images = int(task.kind != 'text_to_image')
  sources = int(task.kind == 'editing' and layout.source_tokens)

  def needs(read: float, written: float | None) -> tuple[float, ...]:
    # BOS and the separator besides.
    prefix = images * layout.understanding_tokens + read + 2
    if written is None:
      return prefix + layout.generated_tokens, 0, images, 1, sources
    return prefix + written, written + 1, images, 0, 0

  room = dataclasses.astuple(row)
  for i in track(range(len(task)), 'texts looked at'):
    read, written = task.texts(i)
    most = _at_most(read), _at_most(written) if written else None
    longest = max(most[0], most[1] or 0)
    if longest <= layout.max_text and all(
      need <= left for need, left in zip(needs(*most), room, strict=True)
    ):
      continue  # Without encoding it.
    try:
      counts = [_tokens(t, tokenizer, layout) for t in (read, written) if t]
      check_fits(needs(counts[0], counts[1] if written else None), row)
    except UserError as error:
      raise UserError(f'{task[i]["place"]}: {error}') from error


def check_longest(
  name: str, kind: str, layout: LayoutConfig, row: RowConfig
) -> None:
  """Refuses rows without room for the longest prompt and its image.

  Of a task that writes texts, whose prompts are short mostly, or images after
  nothing, rows have to have room for the images and for a text at all.

  Args:
    name: The source's, for the message.
    kind: Kind of its task.
    layout: Sizes of the parts of an example.
    row: What a row has room for.

  Raises:
    UserError: With the numbers.
  """
  writes_image = kind in ('text_to_image', 'editing', 'picture')
  needs = {
    'understanding_images': kind in ('captioning', 'vqa', 'editing'),
    'generated_images': writes_image,
    'source_images': kind == 'editing' and layout.source_tokens,
    'text_targets': not writes_image,
  }
  for key, needed in needs.items():
    if needed and not getattr(row, key):
      raise UserError(
        f'data.row.{key} is 0, but an example of {name} needs one; raise it, '
        'or drop that source'
      )
  # BOS and the separator besides.
  read = needs['understanding_images'] * layout.understanding_tokens + 2
  if kind in ('text_to_image', 'editing'):
    slots = read + layout.max_text + layout.generated_tokens
    if slots > row.length:
      raise UserError(
        f'data.row.length is {row.length}, but an example of {name} may take '
        f'{slots}: a prompt of data.max_text = {layout.max_text} tokens, and '
        'its images; raise it, or lower data.max_text'
      )
  elif kind != 'picture' and read >= row.length:
    raise UserError(
      f'data.row.length is {row.length}, but an example of {name} takes {read} '
      'before any text; raise it'
    )


def _at_most(texts: Iterable[str]) -> float:
  """Most tokens of any of the texts: of ASCII, one a letter and one more."""
  return max(len(text) + 1 if text.isascii() else math.inf for text in texts)


def _tokens(
  texts: Iterable[str], tokenizer: Tokenizer, layout: LayoutConfig
) -> int:
  """Tokens of the longest text, none of which may be too long."""
  counts = []
  for text in texts:
    counts.append(len(tokenizer.encode_line(text)))
    check_length(text, counts[-1], layout)
  return max(counts)
