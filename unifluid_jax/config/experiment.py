"""An experiment: the whole config as frozen dataclasses, checked across
sections, and the objects that it describes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unifluid_jax.config import builder as config_lib
from unifluid_jax.config.sections import (
  DataConfig,
  EvaluationConfig,
  InitConfig,
  SourceConfig,
  TokenizerConfig,
  TrainingConfig,
  VAETrainingConfig,
  check_source,
)
from unifluid_jax.config.training_sections import OptimizerConfig
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks import make_task
from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.pipeline import PipelineConfig
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.sources.tfds import TfdsTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.data.vocabulary import train_tokenizer
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.diffusion.solvers import make_solver
from unifluid_jax.models.unifluid import ImageTokens, ModelConfig
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.sampling.image_decoding import (
  ImageSamplingConfig,
  tokens_per_step,
)
from unifluid_jax.sampling.text_decoding import TextSamplingConfig
from unifluid_jax.sharding.mesh import MeshConfig
from unifluid_jax.utils.errors import Collector, UserError, check_between
from unifluid_jax.utils.paths import AnyPath, to_path

TOKENIZER_FILE = 'tokenizer.model'


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A whole config file.

  `sampling` is for images from text, `edit_sampling` for edits: by default the
  same without guidance, since a source says so much that it does harm.
  """

  seed: int
  data: DataConfig
  vae: VAEConfig
  vae_training: VAETrainingConfig
  model: ModelConfig
  training: TrainingConfig
  optimizer: OptimizerConfig
  tokenizer: TokenizerConfig = TokenizerConfig()
  sampling: ImageSamplingConfig = ImageSamplingConfig()
  edit_sampling: ImageSamplingConfig = None  # type: ignore[assignment]
  text_sampling: TextSamplingConfig = TextSamplingConfig()
  mesh: MeshConfig = MeshConfig()
  init: InitConfig = InitConfig()
  evaluation: EvaluationConfig = EvaluationConfig()

  def __post_init__(self):
    if self.edit_sampling is None:
      unguided = dataclasses.replace(self.sampling, guidance=Guidance())
      object.__setattr__(self, 'edit_sampling', unguided)
    problems = Collector()
    with problems.catch():
      check_between('config', self, 0, 2**32, 'seed')
    with problems.catch():
      self._check_sizes()
      self._check_sampling()  # It needs a whole number of tokens.
    with problems.catch():
      if self.data.row_capacity.source_images and not self.model.source_tokens:
        raise UserError(
          'data.row_capacity.source_images is '
          f'{self.data.row_capacity.source_images}, but model.source_tokens is '
          'off; set the first to 0 or the other to True'
        )
    with problems.catch():
      if not self.tokenizer.path and not self.init.workdir:
        pieces = self.tokenizer.vocab_size
        self._check_rows(f'tokenizer.vocab_size is {pieces}', pieces)
    problems.check()

  def _check_sizes(self) -> None:
    """Refuses sizes that make no whole number of tokens."""
    widths, groups = self.vae.widths, self.vae.groups
    if not widths or any(width < 1 or width % groups for width in widths):
      raise UserError(
        f'vae.widths is {list(widths)}; it must be one width or more, each a '
        f'multiple of vae.groups = {groups}'
      )
    side, stride = self.data.image_size, self.vae.stride * self.model.patch
    if side % stride:
      raise UserError(
        f'data.image_size is {side}; the VAE and model.patch make one token '
        f'of {stride}x{stride} pixels, so it must be a multiple of {stride}'
      )

  def _check_sampling(self) -> None:
    """Refuses what cannot be sampled, before hours of training."""
    problems = Collector()
    objective = make_objective(self.model.objective)

    def check(name: str, sampling: ImageSamplingConfig) -> None:
      with problems.catch(f'{name}: '):
        make_solver(sampling.solver, objective, sampling.head_steps)
      with problems.catch(f'{name}: '):
        tokens_per_step(self.grid**2, sampling.steps)

    check('sampling', self.sampling)
    if not problems:  # Edits are sampled likewise unless told otherwise.
      check('edit_sampling', self.edit_sampling)
    problems.check()

  @property
  def grid(self) -> int:
    """Tokens of a generated image, along one side."""
    return self.data.image_size // (self.vae.stride * self.model.patch)

  @property
  def token_dim(self) -> int:
    """Dimensions of an image token."""
    return self.vae.latent_channels * self.model.patch**2

  def layout(self) -> LayoutConfig:
    """Sizes of the parts of an example.

    Raises:
      UserError: `data.max_text` has not been set from the texts.
    """
    self._check_set('max_text', self.data.max_text)
    return LayoutConfig(
      understanding_tokens=self.model.encoder.tokens,
      generated_tokens=self.grid**2,
      source_tokens=self.model.source_tokens,
      understanding_size=self.model.encoder.image_size,
      generated_size=self.data.image_size,
      max_text=self.data.max_text,
    )

  def pipeline(self) -> PipelineConfig:
    """What batches of the training mixture are made of.

    Raises:
      UserError: A length of the rows has not been set from the texts.
    """
    data = self.data
    self._check_set('row_capacity.length', data.row_capacity.length)
    self._check_set('row_capacity.text_targets', data.row_capacity.text_targets)
    return PipelineConfig(
      seed=self.seed,
      weights={name: s.weight for name, s in data.sources.items()},
      examples=data.examples,
      batch_rows=data.batch_rows,
      packing_windows=data.packing_windows,
      row_capacity=data.row_capacity,
      cond_drop_prob=data.cond_drop_prob,
      num_workers=data.num_workers,
    )

  def _check_set(self, key: str, value: int) -> None:
    """Refuses a limit that the texts are yet to set."""
    if value == config_lib.AUTO:
      raise UserError(
        f'data.{key} is {config_lib.AUTO!r}, which a training sets from its '
        'texts; use the config.json of the run, or give a number'
      )

  def image_tokens(self, boi_id: int) -> ImageTokens:
    """The image tokens of the model.

    Args:
      boi_id: The vocabulary's beginning-of-image id.
    """
    return ImageTokens(self.grid**2, self.token_dim, boi_id)

  def make_tasks(self, sources: Mapping[str, SourceConfig]) -> dict[str, Task]:
    """Opens sources of examples.

    Raises:
      UserError: One cannot be opened, or has keys that nothing looks at.
    """
    return {
      name: self.make_task(name, source) for name, source in sources.items()
    }

  def make_task(self, name: str, source: SourceConfig) -> Task:
    """Opens one source.

    Args:
      name: The source's, for messages.
      source: The source.

    Raises:
      UserError: As `make_tasks`.
    """
    check_source(name, source)
    return self._make_task(source)

  def heldout_tasks(self, tasks: Mapping[str, Task]) -> dict[str, FolderTask]:
    """The lines that the sources of the training mixture keep out of training.

    Args:
      tasks: The tasks of `data.sources`, by name.

    Returns:
      By the same names; without sources that hold out no line.
    """
    heldout = {
      name: task.of_split('heldout')
      for name, task in tasks.items()
      if isinstance(task, FolderTask)
      and self.data.sources[name].split == 'train'
    }
    return {name: task for name, task in heldout.items() if len(task)}

  def emoji(self, concepts: str = '') -> EmojiConfig:
    """The part of the embedded data set that is used."""
    data = self.data
    return EmojiConfig(concepts or data.concepts, data.artists, data.image_size)

  def _make_task(self, source: SourceConfig) -> Task:
    size, max_pixels = self.data.image_size, self.data.max_pixels
    encoder_size = self.model.encoder.image_size
    match source.kind:
      case 'folder':
        return FolderTask(
          source.path,
          source.task,
          size,
          source.split,
          self.data.heldout,
          max_pixels,
          encoder_size,
        )
      case 'tfds':
        return TfdsTask(
          source.path,
          source.split,
          source.task,
          size,
          source.features,
          str(to_path(source.data_dir)) if source.data_dir else None,
          max_pixels,
          encoder_size,
        )
      case _:
        emoji = self.emoji(source.concepts)
        return make_task(source.task, emoji, source.split, source.kinds)

  def make_tokenizer(self, workdir: AnyPath) -> Tokenizer:
    """The vocabulary of a run as `find_tokenizer` gives it, kept in its folder.

    Raises:
      UserError: As `find_tokenizer`.
    """
    tokenizer = self.find_tokenizer(workdir)
    self.keep_tokenizer(tokenizer, workdir)
    return tokenizer

  def keep_tokenizer(self, tokenizer: Tokenizer, workdir: AnyPath) -> None:
    """Writes a vocabulary into a run's folder, unless it is there already."""
    file = workdir / TOKENIZER_FILE
    if not file.exists() or file.read_bytes() != tokenizer.model:
      tokenizer.save(file)

  def find_tokenizer(
    self, workdir: AnyPath | None, tasks: Mapping[str, Task] | None = None
  ) -> Tokenizer:
    """The vocabulary of a run: the run's own, else the config's.

    A vocabulary that has to be trained is trained on the texts of the tasks.
    One of fewer pieces than the config asks for, as few texts make, is made
    anew as long as nothing was trained with it.

    Args:
      workdir: The run's folder, which is only read; None for no run.
      tasks: Those of `data.sources`; None to open them where they are needed.

    Raises:
      UserError: There is none, or it does not fit the config.
    """
    path = self.tokenizer.path
    if self.init.workdir:
      path = str(to_path(self.init.workdir) / TOKENIZER_FILE)
    if workdir is not None and (workdir / TOKENIZER_FILE).exists():
      own = Tokenizer.load(workdir / TOKENIZER_FILE)
      is_whole = path or own.vocab_size >= self.tokenizer.vocab_size
      if is_whole or (workdir / 'checkpoints').exists():
        self._check_vocabulary(own, path, workdir / TOKENIZER_FILE)
        self.check_tokenizer(own)
        return own
    if path:
      tokenizer = Tokenizer.load(path)
      self.check_tokenizer(tokenizer)
      return tokenizer
    if tasks is None:
      tasks = self.make_tasks(self.data.sources)
    return train_tokenizer(tasks, self.tokenizer.vocab_size)

  def _check_vocabulary(self, own: Tokenizer, path: str, file: AnyPath) -> None:
    """Refuses a run's own vocabulary where the config asks for another."""
    if not path:
      wanted = f'at most {self.tokenizer.vocab_size} pieces'
      same = own.vocab_size <= self.tokenizer.vocab_size
    else:
      # The file may be gone once the run has its copy.
      wanted, source = f'that of {path}', to_path(path)
      same = (
        not source.exists()
        or Tokenizer.load(source).fingerprint == own.fingerprint
      )
    if not same:
      raise UserError(
        f'{file} has {own.vocab_size} pieces, and the config asks for another '
        f'vocabulary ({wanted}); use another --workdir, or remove the file if '
        'nothing has been trained with it'
      )

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Refuses a vocabulary that the embedding table has no room for.

    Raises:
      UserError: It has more pieces than `model.gemma.vocab_size`.
    """
    pieces = tokenizer.vocab_size
    self._check_rows(f'the tokenizer has {pieces} pieces', pieces)

  def _check_rows(self, told: str, pieces: int) -> None:
    """Refuses a vocabulary that the embedding table has no room for."""
    rows = self.model.gemma.vocab_size
    if pieces > rows:
      raise UserError(
        f'{told} and model.gemma.vocab_size is {rows}; it must be at least as '
        'large'
      )

  def vae_identity(self) -> dict[str, Any]:
    """What fixes the meaning of a VAE checkpoint's arrays."""
    return config_lib.to_dict({'seed': self.seed, 'vae': self.vae})

  def identity(self, tokenizer: Tokenizer) -> dict[str, Any]:
    """What fixes the meaning of a UniFluid checkpoint's arrays."""
    model = config_lib.to_dict(self.model)
    # How it is computed is no matter.
    for section in (model, model['head']):
      for key in ('dtype', 'fused_attention', 'remat', 'unroll'):
        section.pop(key, None)
    return self.vae_identity() | {
      'model': model,
      'image_size': self.data.image_size,
      'frozen': list(self.init.frozen),
      'tokenizer': tokenizer.fingerprint,
    }
