"""config.init: what a new run starts from."""

import dataclasses
import re

from unifluid_jax.models.parameters import check_storage
from unifluid_jax.utils.errors import (
  UserError,
  check_pattern,
)

NEW_ROWS = ('normal', 'mean')
"""How the rows of new pieces of a vocabulary may be made."""


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
