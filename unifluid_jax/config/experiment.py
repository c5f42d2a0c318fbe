"""An experiment: the whole config as frozen dataclasses, checked across
sections, and the objects that it describes.
"""

import dataclasses
from typing import Any

from unifluid_jax.config import builder as config_lib
from unifluid_jax.config.sections.data import (
  DataConfig,
)
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.config.sections.init import InitConfig
from unifluid_jax.config.sections.optimizer import OptimizerConfig
from unifluid_jax.config.sections.sampling import (
  ImageSamplingConfig,
  TextSamplingConfig,
)
from unifluid_jax.config.sections.tokenizer import TokenizerConfig
from unifluid_jax.config.sections.training import TrainingConfig
from unifluid_jax.config.sections.vae_training import VAETrainingConfig
from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.packing import AUTO
from unifluid_jax.data.pipeline import PipelineConfig
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.diffusion.solvers import make_solver
from unifluid_jax.masking import tokens_per_step
from unifluid_jax.models.unifluid import ImageTokens, ModelConfig
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.sharding.mesh import MeshConfig
from unifluid_jax.utils.errors import Collector, UserError, check_between


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A whole config file.

  `sampling` is for images from text, `edit_sampling` for edits, see
  `editing`.
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
  edit_sampling: ImageSamplingConfig | None = None
  text_sampling: TextSamplingConfig = TextSamplingConfig()
  mesh: MeshConfig = MeshConfig()
  init: InitConfig = InitConfig()
  evaluation: EvaluationConfig = EvaluationConfig()

  def __post_init__(self):
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
    """Rejects sizes that make no whole number of tokens."""
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
    """Rejects what cannot be sampled, before hours of training."""
    problems = Collector()
    objective = make_objective(self.model.objective)

    def check(name: str, sampling: ImageSamplingConfig) -> None:
      with problems.catch(f'{name}: '):
        make_solver(sampling.solver, objective, sampling.head_steps)
      with problems.catch(f'{name}: '):
        tokens_per_step(self.grid**2, sampling.steps)

    check('sampling', self.sampling)
    # Keys of edits follow those of `sampling` until they are set.
    if self.edit_sampling is not None and not problems:
      check('edit_sampling', self.edit_sampling)
    problems.check()

  @property
  def editing(self) -> ImageSamplingConfig:
    """How edits are sampled: `edit_sampling`, else `sampling` unguided.

    The source conditions an edit strongly, so guidance hurts.
    """
    if self.edit_sampling is not None:
      return self.edit_sampling
    return dataclasses.replace(self.sampling, guidance=Guidance())

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
    """Rejects a limit that is still 'auto'."""
    if value == AUTO:
      raise UserError(
        f'data.{key} is {AUTO!r}, which a training sets from its '
        'texts; use the config.json of the run, or give a number'
      )

  def image_tokens(self, boi_id: int) -> ImageTokens:
    """The image tokens of the model.

    Args:
      boi_id: The vocabulary's beginning-of-image id.
    """
    return ImageTokens(self.grid**2, self.token_dim, boi_id)

  def emoji(self, concepts: str = '') -> EmojiConfig:
    """The part of the embedded data set that is used."""
    data = self.data
    return EmojiConfig(concepts or data.concepts, data.artists, data.image_size)

  def check_vocab_size(self, pieces: int) -> None:
    """Rejects a vocabulary that the embedding table has no room for.

    Args:
      pieces: Pieces of the vocabulary.

    Raises:
      UserError: It has more pieces than `model.gemma.vocab_size`.
    """
    self._check_rows(f'the tokenizer has {pieces} pieces', pieces)

  def _check_rows(self, subject: str, pieces: int) -> None:
    """Rejects a vocabulary that the embedding table has no room for."""
    rows = self.model.gemma.vocab_size
    if pieces > rows:
      raise UserError(
        f'{subject} and model.gemma.vocab_size is {rows}; it must be at least '
        'as large'
      )

  def vae_identity(self) -> dict[str, Any]:
    """What fixes the meaning of a VAE checkpoint's arrays."""
    return config_lib.to_dict({'seed': self.seed, 'vae': self.vae})

  def identity(self, fingerprint: str) -> dict[str, Any]:
    """What fixes the meaning of a UniFluid checkpoint's arrays.

    Args:
      fingerprint: Of the tokenizer.
    """
    model = config_lib.to_dict(self.model)
    # How it is computed is no matter.
    for section in (model, model['head']):
      for key in ('dtype', 'fused_attention', 'remat', 'unroll'):
        section.pop(key, None)
    return self.vae_identity() | {
      'model': model,
      'image_size': self.data.image_size,
      'frozen': list(self.init.frozen),
      'tokenizer': fingerprint,
    }
