"""config.init: what a new run starts from."""

import dataclasses
import re

from unifluid_jax.models.parameters import check_storage
from unifluid_jax.utils.errors import (
  UserError,
  check_pattern,
)

NEW_ROWS = ('normal', 'mean')
"""How rows of added vocabulary entries may be initialized."""


@dataclasses.dataclass(frozen=True)
class InitConfig:
  """Sources of initial parameters.

  If this section names a source, every parameter of the model must come from a
  source or match `new`; otherwise the run stops with a list. A run logs all
  names when it starts. Files and folders have any format that
  `unifluid_jax.convert` reads, or its own.

  Attributes:
    workdir: Folder of a finished run; its vocabulary is used, too.
    parameters: Regular expressions of the names to take from that run.
    backbone: File or folder of a Gemma.
    encoder: File or folder of a SigLIP. If it is also the backbone (PaliGemma),
      the connector is loaded, too.
    vae: File or folder of a VAE, which is not trained then.
    frozen: Regular expressions of names that are not trained.
    new: Regular expressions of names that may start fresh.
    new_rows: How rows that a longer vocabulary adds to the embedding table are
      initialized: 'normal', N(0, 0.02^2), or 'mean' of the old rows. Empty
      rejects a longer vocabulary.
    resize_positions: Whether the encoder's position table may be resized to
      `model.encoder.image_size`.
    dtype: Storage dtypes of frozen matrices, as 'PATTERN=DTYPE' with a regular
      expression of names; the first match counts, else float32.
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
    """Sources of the model's parameters."""
    named = (self.workdir, self.backbone, self.encoder)
    return tuple(source for source in named if source)

  def is_frozen(self, name: str) -> bool:
    """Whether a parameter is frozen."""
    return any(re.search(pattern, name) for pattern in self.frozen)
