"""Whether a row has room for every text of a folder's records.

Training comes to a record after hours or days; its texts are in memory at the
start.
"""

from collections.abc import Iterable

from unifluid_jax.data.layout import LayoutConfig, check_length
from unifluid_jax.data.packing import RowConfig, check_fits
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError


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

  def longest(texts: Iterable[str]) -> int:
    lengths = []
    for text in texts:
      lengths.append(len(tokenizer.encode(text)))
      check_length(text, lengths[-1], layout)
    return max(lengths)

  images = int(task.kind != 'text_to_image')
  sources = int(task.kind == 'editing' and layout.source_tokens)
  # BOS and the separator besides.
  length = images * layout.understanding_tokens + 2
  for place, read, written in task.texts():
    try:
      prefix = length + longest(read)
      if written:
        target = longest(written)
        needs = (prefix + target, target + 1, images, 0, 0)
      else:
        needs = (prefix + layout.generated_tokens, 0, images, 1, sources)
      check_fits(needs, row)
    except UserError as error:
      raise UserError(f'{place}: {error}') from error
