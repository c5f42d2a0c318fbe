"""Checks before training starts that rows have room for every example.

Training may reach a record only after days. A folder's texts are in memory and
are all counted. A sample of the embedded data is counted. For other data, rows
must have room for the longest prompt that the config allows.
"""

from collections.abc import Mapping, Sequence

from unifluid_jax.data.counting import (
  NAMES,
  Counted,
  Limits,
  count_texts,
  elementwise_max,
  exceeds,
  sample_texts,
)
from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask
from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.packing import RowCapacity
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import Collector, UserError, listed

_SHOWN = 60
"""Most letters of a text in a message."""


def check_room(
  tasks: Mapping[str, Task],
  kinds: Mapping[str, str],
  tokenizer: Tokenizer | None,
  layout: LayoutConfig,
  row: RowCapacity,
) -> None:
  """Checks that an empty row has room for any example of the sources.

  Args:
    tasks: The sources that could be opened, by name.
    kinds: Kind of the task of each source.
    tokenizer: Encodes the texts; None counts nothing.
    layout: Sizes of the parts of an example.
    row: What a row has room for.

  Raises:
    UserError: With what does not fit, and the least limits by which all texts
      that were counted do.
  """
  problems = Collector()
  for name, kind in kinds.items():
    problems.add(*_missing_images(name, kind, layout, row))
  room = Limits(layout.max_text, row.length, row.text_targets)
  found: dict[str, Counted] = {}
  if tokenizer is None:
    tasks = {}
  else:
    found = _count(tasks, tokenizer, layout, room)
  # What raising max_text for some sources means for the rows of the others.
  wanted = elementwise_max(
    (room, *(counted.needs for counted in found.values()))
  )
  for name, kind in kinds.items():
    if not isinstance(tasks.get(name), FolderTask):
      length = _longest(kind, layout, wanted.max_text)
      if length > row.length:
        problems.add(_too_short(name, kind, row, wanted.max_text, length))
      wanted = wanted._replace(length=max(wanted.length, length))
  if found:
    problems.add(_do_not_fit([*found.values()], room, wanted))
  problems.check()


def _count(
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  layout: LayoutConfig,
  room: Limits,
) -> dict[str, Counted]:
  """The records that need more than there is, by place."""
  found: dict[str, Counted] = {}
  for name, task in tasks.items():
    if isinstance(task, FolderTask):
      for counted in count_texts(task, tokenizer, layout, room):
        _merge(found, counted)
    elif isinstance(task, EmojiTask):
      counted = sample_texts(name, task, tokenizer, layout)
      if exceeds(counted.needs, room):
        _merge(found, counted)
  return found


def _merge(found: dict[str, Counted], counted: Counted) -> None:
  """Adds a record, which another source may have read as well."""
  before = found.get(counted.place, counted)
  needs = elementwise_max((before.needs, counted.needs))
  text = max(before.text, counted.text, key=len)
  found[counted.place] = Counted(counted.place, needs, text)


def _do_not_fit(
  found: Sequence[Counted], room: Limits, wanted: Limits
) -> UserError:
  """The records that need more than there is, and what fits them all."""
  overview = ', '.join(
    f'{name} = {want} (it is {have})'
    for name, want, have in zip(NAMES, wanted, room, strict=True)
    if want > have
  )
  if len(found) == 1:
    (one,) = found
    return UserError(
      f'{one.place}: the text {_shorten(one.text)} does not fit; set '
      f'{overview}, or shorten it'
    )
  lines = []
  for place, needs, text in found:
    own = ', '.join(
      f'{name} = {need}'
      for name, need, have in zip(NAMES, needs, room, strict=True)
      if need > have
    )
    lines.append(f'{place} needs {own}: {_shorten(text)}')
  title = f'{len(found)} records do not fit; set {overview}, or shorten'
  return UserError(listed(f'{title} their texts', lines))


def _missing_images(
  name: str, kind: str, layout: LayoutConfig, row: RowCapacity
) -> list[UserError]:
  """Lists kinds of images and predictions that rows have no room for."""
  generates_image = _writes_image(kind)
  needs = {
    'understanding_images': _reads_image(kind),
    'generated_images': generates_image,
    'source_images': kind == 'editing' and layout.source_tokens,
    'text_targets': not generates_image,
  }
  return [
    UserError(
      f'data.row_capacity.{key} is 0, but an example of {name} needs one; '
      'raise it, or drop that source'
    )
    for key, needed in needs.items()
    if needed and not getattr(row, key)
  ]


def _longest(kind: str, layout: LayoutConfig, max_text: int) -> int:
  """Slots that rows must have for a source whose texts are not known.

  Prompts of a task that writes texts are mostly short, so there it is enough
  that a text fits at all.
  """
  if kind == 'picture':
    return 0
  read = _reads_image(kind) * layout.understanding_tokens + 2
  if _writes_image(kind):
    return read + max_text + layout.generated_tokens
  return read + 1


def _too_short(
  name: str, kind: str, row: RowCapacity, max_text: int, length: int
) -> UserError:
  if _writes_image(kind):
    return UserError(
      f'data.row_capacity.length is {row.length}, but an example of {name} may '
      f'take {length}: a prompt of data.max_text = {max_text} tokens, and its '
      f'images; set it to {length} or more, or lower data.max_text'
    )
  return UserError(
    f'data.row_capacity.length is {row.length}, but an example of {name} takes '
    f'{length - 1} before any text; set it to {length} or more'
  )


def _reads_image(kind: str) -> bool:
  return kind in ('captioning', 'vqa', 'editing')


def _writes_image(kind: str) -> bool:
  return kind in ('text_to_image', 'editing', 'picture')


def _shorten(text: str) -> str:
  return repr(text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...')
