"""config.data: the sources, and the batches that are made of them."""

import dataclasses
from collections.abc import Mapping

from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.images import MAX_PIXELS, PILLOW_PIXELS
from unifluid_jax.data.packing import AUTO, AutoInt, RowCapacity
from unifluid_jax.data.sources.split import SPLITS
from unifluid_jax.utils.errors import (
  UserError,
  check_between,
  check_least,
  check_most,
)

READS = {
  'emoji': ('split', 'concepts', 'kinds'),
  'folder': ('path', 'split'),
  'tfds': ('path', 'split', 'features', 'data_dir'),
}
"""Kinds of sources, and the keys that each reads besides weight and task."""


@dataclasses.dataclass(frozen=True)
class SourceConfig:
  """One source of examples.

  Attributes:
    weight: Relative share of the examples.
    kind: 'emoji' (embedded), 'folder' (a JSONL file) or 'tfds', see READS.
    task: 'text_to_image', 'captioning', 'vqa' or 'editing'; the embedded data
      also has 'picture', for the VAE.
    split: Split of the embedded data or of the TFDS data set; of a folder
      'train', 'heldout' (see `data.heldout`) or 'all'.
    path: The JSONL file, or the name of the TFDS data set.
    features: For TFDS: the feature that holds each key of a record.
    data_dir: For TFDS: where its data sets are; empty for its own default.
    concepts: For 'emoji': concepts other than data.concepts.
    kinds: For 'emoji': kinds of questions or edits; empty for all.
  """

  weight: float
  kind: str
  task: str
  split: str = 'train'
  path: str = ''
  features: Mapping[str, str] = dataclasses.field(default_factory=dict)
  data_dir: str = ''
  concepts: str = ''
  kinds: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Sources and batches.

  Attributes:
    image_size: Side in pixels of generated images and of their sources.
    sources: The sources, by name.
    max_text: Largest number of tokens of a prompt, and of a text target; 'auto'
      sets it from the texts, see `training.text_limits`.
    examples: Examples of a step, over all processes. Examples that fit no row
      are dropped; the log's `examples` counts the others.
    batch_rows: Rows that the examples of a step are packed into.
    packing_windows: Windows of rows that are packed independently; fewer
      windows pack better. A process packs every window that it has a row of,
      so use at least as many windows as processes.
    row_capacity: Capacity of a row.
    cond_drop_prob: Probability of dropping the prompt of an image, for
      classifier-free guidance.
    num_workers: Processes that read ahead; 0 for threads only.
    concepts: Concepts of the embedded data, a key of CONCEPT_SETS.
    artists: Artists of the embedded data.
    heldout: Share of a folder's images that are held out of training, with all
      their lines; see `data.sources.split`.
    max_pixels: Largest number of pixels of an image file.
  """

  image_size: int
  sources: Mapping[str, SourceConfig]
  max_text: AutoInt
  examples: int
  batch_rows: int
  packing_windows: int
  row_capacity: RowCapacity
  cond_drop_prob: float = 0.1
  num_workers: int = 0
  concepts: str = 'quickstart'
  artists: tuple[str, ...] = EmojiConfig.artists
  heldout: float = 0.0
  max_pixels: int = MAX_PIXELS

  def __post_init__(self):
    counts = ('image_size', 'examples', 'batch_rows', 'packing_windows')
    check_least('data', self, 1, *counts)
    if self.max_text != AUTO:
      check_least('data', self, 1, 'max_text')
      check_most('data', self, 2**20, 'max_text')
    check_least('data', self, 0, 'num_workers')
    check_most('data', self, 2**12, 'image_size')
    check_most('data', self, 2**17, 'examples', 'batch_rows', 'packing_windows')
    check_most('data', self, 2**8, 'num_workers')
    check_between('data', self, 1, PILLOW_PIXELS + 1, 'max_pixels')
    if not 0 <= self.cond_drop_prob <= 1:
      raise UserError(
        f'data.cond_drop_prob is {self.cond_drop_prob}; it must be in 0..1'
      )
    check_between('data', self, 0, 1, 'heldout')


def check_source(name: str, source: SourceConfig) -> None:
  """Rejects unknown kinds, and keys that a kind does not read.

  Args:
    name: Name of the source, for messages.
    source: The source.

  Raises:
    UserError: Names the source and the key.
  """
  if source.kind not in READS:
    raise UserError(
      f'the source {name!r} has kind {source.kind!r}; it must be one of '
      f'{", ".join(READS)}'
    )
  if source.kind == 'folder' and source.split not in SPLITS:
    raise UserError(
      f'the source {name!r} has split {source.split!r}; a folder has '
      f'{", ".join(SPLITS)}'
    )
  reads = ('weight', 'kind', 'task', *READS[source.kind])
  for field in dataclasses.fields(source):
    value = getattr(source, field.name)
    given = any(value.values()) if isinstance(value, Mapping) else value
    # Flags set every key, so empty and default values are allowed.
    if field.name not in reads and given and value != field.default:
      raise UserError(
        f'the source {name!r} has {field.name} {value!r}, which sources of '
        f'kind {source.kind!r} do not read; remove it'
      )
