"""The sections of a config, as frozen dataclasses."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from unifluid_jax.config.builder import AUTO, AutoInt
from unifluid_jax.config.training_sections import (
  BALANCES,
  CheckpointConfig,
  OptimizerConfig,
  VAELossConfig,
)
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.images import MAX_PIXELS, PILLOW_PIXELS
from unifluid_jax.data.packing import RowCapacity
from unifluid_jax.data.sources.split import SPLITS
from unifluid_jax.masking import ORDERS
from unifluid_jax.models.parameters import DTYPES
from unifluid_jax.utils.errors import (
  UserError,
  check_between,
  check_least,
  check_most,
  check_pattern,
)

READS = {
  'emoji': ('split', 'concepts', 'kinds'),
  'folder': ('path', 'split'),
  'tfds': ('path', 'split', 'features', 'data_dir'),
}
"""Kinds of sources, and the keys that each looks at besides weight and task."""

NEW_ROWS = ('normal', 'mean')
"""How the rows of new pieces of a vocabulary may be made."""


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """Where the vocabulary comes from.

  Attributes:
    path: A SentencePiece model, such as Gemma's; empty to train one on the
      texts of the tasks.
    vocab_size: Most pieces of a vocabulary that is trained.
  """

  path: str = ''
  vocab_size: int = 1024

  def __post_init__(self):
    check_least('tokenizer', self, 1, 'vocab_size')
    check_most('tokenizer', self, 2**24, 'vocab_size')


@dataclasses.dataclass(frozen=True)
class SourceConfig:
  """One source of examples.

  Attributes:
    weight: Share of the examples, up to a factor.
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
  """What batches are made of.

  Attributes:
    image_size: Side in pixels of all images; what is read is then resized to
      `model.encoder.image_size`.
    sources: The sources, by name.
    max_text: Most tokens of a prompt, and of a text target; 'auto' to set it
      from the texts, see `runs.limits`.
    examples: Examples of a step, over all processes, of which those are
      dropped that no row has room for; the log's `examples` counts the rest.
    batch_rows: Rows that the examples of a step are packed into.
    packing_windows: Windows of rows that are packed independently; fewer pack
      better. A process packs every window that it has a row of, so there
      should be as many windows as processes, or more.
    row_capacity: What a row has room for.
    cond_drop_prob: Probability that an image is written after nothing.
    num_workers: Processes that read ahead; 0 for threads only.
    concepts: Concepts of the embedded data, a key of CONCEPT_SETS.
    artists: Artists of the embedded data.
    heldout: Share of a folder's images that are kept out of training, with all
      their lines; see `data.sources.split`.
    max_pixels: Pixels that an image file may have.
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


@dataclasses.dataclass(frozen=True)
class VAETrainingConfig:
  """How the VAE is trained.

  Attributes:
    steps: Length of the run.
    batch: Images of a step.
    sources: Where the images come from: the images that tasks write.
    optimizer: Hyper-parameters.
    loss: Weights of the loss.
    log_every: Steps between two lines of the log.
    checkpoint: When checkpoints are made.
    statistics_batches: Batches over which the latents are measured.
  """

  steps: int
  batch: int
  sources: Mapping[str, SourceConfig]
  optimizer: OptimizerConfig
  loss: VAELossConfig = VAELossConfig()
  log_every: int = 50
  checkpoint: CheckpointConfig = CheckpointConfig()
  statistics_batches: int = 32

  def __post_init__(self):
    counts = ('batch', 'log_every', 'statistics_batches')
    check_least('vae_training', self, 1, *counts)
    check_least('vae_training', self, 0, 'steps')
    check_most('vae_training', self, 2**17, 'batch', 'statistics_batches')


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How UniFluid is trained.

  Attributes:
    steps: Length of the run.
    text_weight: lambda, the weight of the text loss.
    diffusion_batch_mul: Noise levels drawn per image token.
    order: Order of image tokens: 'random', 'raster', or 'anneal', which fades
      from random to raster order. Images are sampled in raster order once no
      random order is left, else in random order.
    anneal_steps: First step of the fade, and first step without random order;
      for 'anneal' only.
    balance: Policy of the loss balance, see `training.balance`.
    balance_every: Steps between two measurements of the tasks' gradients,
      and updates of the balance; 0 for none.
    grad_accum_steps: Microbatches of a step.
    heldout_every: Steps between two measurements of the losses of held-out
      lines, where a folder has any; see `data.heldout`.
    log_every: Steps between two lines of the log.
    checkpoint: When checkpoints are made.
    profile: First and last step, numbered from 1, of an XProf trace in the
      run's `profile/`; None for no trace.
  """

  steps: int
  text_weight: float
  diffusion_batch_mul: int = 4
  order: str = 'random'
  anneal_steps: tuple[int, int] | None = None
  balance: str = 'fixed'
  balance_every: int = 0
  grad_accum_steps: int = 1
  heldout_every: int = 100
  log_every: int = 50
  checkpoint: CheckpointConfig = CheckpointConfig()
  profile: tuple[int, int] | None = None

  def __post_init__(self):
    counts = (
      'diffusion_batch_mul',
      'grad_accum_steps',
      'heldout_every',
      'log_every',
    )
    check_least('training', self, 1, *counts)
    check_least('training', self, 0, 'steps', 'balance_every')
    check_most('training', self, 2**12, 'diffusion_batch_mul')
    check_between('training', self, 0, math.inf, 'text_weight')
    if self.balance not in BALANCES:
      raise UserError(
        f'training.balance is {self.balance!r}; it must be one of {BALANCES}'
      )
    if self.balance != 'fixed' and not self.balance_every:
      raise UserError(
        f'training.balance is {self.balance!r}, which learns from '
        'measurements: set training.balance_every'
      )
    if self.order not in ORDERS:
      raise UserError(
        f'training.order is {self.order!r}; it must be one of {ORDERS}'
      )
    if (self.order == 'anneal') != (self.anneal_steps is not None):
      raise UserError(
        f'training.order is {self.order!r} and training.anneal_steps is '
        f"{self.anneal_steps}; order 'anneal' needs a first and a last step, "
        'and the other orders need None'
      )
    steps = self.profile
    if steps is not None and not 1 <= steps[0] <= steps[1]:
      raise UserError(
        f'training.profile is {list(steps)}; it must be a first and a last '
        'step, numbered from 1, such as (10, 12)'
      )

  @property
  def raster_fade(self) -> tuple[int, int] | None:
    """First and last step of the fade to raster order, or None."""
    return (0, 0) if self.order == 'raster' else self.anneal_steps


@dataclasses.dataclass(frozen=True)
class InitConfig:
  """What a new run starts from, instead of fresh parameters.

  Where this section names any source, every parameter of the model must come
  from one, or match `new`; otherwise the run stops with the list. Names are
  those of the table that a run logs when it starts. Files and folders may be
  of any family that `unifluid_jax.convert` reads, or of its own.

  Attributes:
    workdir: Folder of a finished run, whose vocabulary is taken too.
    parameters: Regular expressions of the names to take from that run.
    backbone: File or folder that holds a Gemma.
    encoder: File or folder that holds a SigLIP; where it is the backbone's
      too (PaliGemma), the connector is taken with them.
    vae: File or folder that holds a VAE, which is not trained then.
    frozen: Regular expressions of names that are not trained.
    new: Regular expressions of names that may start fresh.
    new_rows: How the rows are made that a longer vocabulary adds to the
      embedding table: 'normal', N(0, 0.02^2), or 'mean' of the old rows.
      Empty if there must be none.
    resize_positions: Whether the encoder's table of positions may be resized
      to `model.encoder.image_size`.
    dtype: Dtypes that frozen matrices are kept in, as 'PATTERN=DTYPE' with a
      regular expression of names; the first that matches, else float32.
  """

  workdir: str = ''
  parameters: tuple[str, ...] = ('^gemma/',)
  backbone: str = ''
  encoder: str = ''
  vae: str = ''
  frozen: tuple[str, ...] = ()
  new: tuple[str, ...] = ()
  new_rows: str = ''
  resize_positions: bool = False
  dtype: tuple[str, ...] = ()

  def __post_init__(self):
    if self.new_rows not in ('', *NEW_ROWS):
      raise UserError(
        f'init.new_rows is {self.new_rows!r}; it must be one of {NEW_ROWS}'
      )
    for key in ('parameters', 'frozen', 'new'):
      for pattern in getattr(self, key):
        check_pattern(f'init.{key}', pattern)
    check_storage(self.dtype, 'init.dtype')

  @property
  def sources(self) -> tuple[str, ...]:
    """What gives parameters of the model."""
    named = (self.workdir, self.backbone, self.encoder)
    return tuple(source for source in named if source)

  def is_frozen(self, name: str) -> bool:
    """Whether a parameter is left as it is."""
    return any(re.search(pattern, name) for pattern in self.frozen)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What is drawn from the splits of the data to evaluate a run.

  A split that has more than the most is drawn from, without replacement. Of a
  user's own data, each prompt gets one image.

  Attributes:
    seed: Of every draw and of all sampling.
    samples: Images for each held-out prompt; a training prompt gets one.
    prompts: Most prompts of a split.
    captions: Most images of a split that are captioned.
    questions: Most questions of a type.
    edits: Most pairs of image and edit.
    targets: What a measure should reach, by the measure's name.
  """

  seed: int = 0
  samples: int = 16
  prompts: int = 1000
  captions: int = 400
  questions: int = 200
  edits: int = 300
  targets: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_between('evaluation', self, 0, 2**32, 'seed')
    counts = ('samples', 'prompts', 'captions', 'questions', 'edits')
    check_least('evaluation', self, 1, *counts)
    check_most('evaluation', self, 2**20, *counts)


def check_source(name: str, source: SourceConfig) -> None:
  """Refuses a kind that there is not, and keys that a kind does not look at.

  Args:
    name: The source's, for the message.
    source: The source.

  Raises:
    UserError: With the source and the key.
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
    # Flags set every key: what is empty, or its default, asks for nothing.
    if field.name not in reads and given and value != field.default:
      raise UserError(
        f'the source {name!r} has {field.name} {value!r}, which its kind '
        f'{source.kind!r} does not look at; leave it out'
      )


def storage_dtype(entries: Sequence[str], name: str) -> str | None:
  """Dtype of a parameter by entries 'PATTERN=DTYPE' or 'DTYPE' for all.

  Args:
    entries: The first whose regular expression is found in the name counts.
    name: Name of the parameter.
  """
  for entry in entries:
    pattern, _, dtype = entry.rpartition('=')
    if re.search(pattern, name):
      return dtype
  return None


def check_storage(entries: Sequence[str], key: str) -> None:
  """Makes sure that `storage_dtype` can read the entries.

  Raises:
    UserError: One is no dtype, or no regular expression; `key` names it.
  """
  for entry in entries:
    pattern, _, dtype = entry.rpartition('=')
    check_pattern(key, pattern)
    if dtype not in DTYPES:
      raise UserError(
        f'{key} has {entry!r}; it must be PATTERN=DTYPE with one of {DTYPES}'
      )
