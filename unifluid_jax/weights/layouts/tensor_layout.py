"""What a table of a family of files is."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from unifluid_jax.weights.rules import Rule

Config = Any
"""Shape of a part: GemmaConfig, SiglipConfig or VAEConfig."""

GEMMA = 'gemma'
ENCODER = 'encoder'
CONNECTOR = 'connector'
VAE = 'vae'
PARTS = (GEMMA, ENCODER, CONNECTOR, VAE)
"""What a file may hold, by the prefix of our parameters' names."""


class Tensor(NamedTuple):
  """The header of a tensor.

  Attributes:
    shape: Its shape.
    dtype: Its dtype, by numpy's name.
    file: The file that holds it.
  """

  shape: tuple[int, ...]
  dtype: str
  file: str


Header = Mapping[str, Tensor]
"""All tensors of a file, by name."""


@dataclasses.dataclass(frozen=True)
class TensorLayout:
  """Names and axes of one part in one family of files.

  Attributes:
    title: What messages call it.
    part: One of PARTS.
    anchor: End of a name that this part always has; what stands before it is
      the prefix of all its names.
    rules: The table for a config; names are without the prefix.
    unused: Regular expressions of names, without the prefix, that the part
      may have and we need not.
    carried: Regular expression of those among them that an export gives back.
    marks: End of a second name that tells this layout from others.
    described: Whether a config.json beside the file says what it is.
    infer: Config from the headers (names without the prefix), where shapes
      tell it.
    padding: Rows that the published tables of this layout have after those of
      the vocabulary, for no token.
  """

  title: str
  part: str
  anchor: str
  rules: Callable[[Config, Header], Sequence[Rule]]
  unused: tuple[str, ...] = ()
  carried: str = ''
  marks: str = ''
  described: bool = False
  infer: Callable[[Header], Config] | None = None
  padding: int = 0

  def prefixes(self, names: Iterable[str]) -> list[str]:
    """Prefixes under which the names hold this part."""
    names = {*names}
    found = [
      name.removesuffix(self.anchor)
      for name in names
      if name.endswith(self.anchor)
      and name.removesuffix(self.anchor)[-1:] in ('', '.', '/')
    ]
    return [p for p in found if not self.marks or p + self.marks in names]
