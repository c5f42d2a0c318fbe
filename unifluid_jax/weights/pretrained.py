"""Opens weights of any known family: finds the parts, checks every tensor.

A file holds parts: a Gemma, an image encoder, the connector between them, a
VAE. Each is recognized by its names. Nothing is read but headers; the arrays
that come out are read where they are wanted.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import to_path
from unifluid_jax.weights import native_format, unused_tensors
from unifluid_jax.weights.assembly import LazyArray
from unifluid_jax.weights.format_detection import (
  check_config,
  find_config,
  read_described,
)
from unifluid_jax.weights.hf_config import Described
from unifluid_jax.weights.layouts import (
  autoencoder_layout,
  big_vision_layout,
  flax_gemma_layout,
  hugging_face_layout,
)
from unifluid_jax.weights.layouts.tensor_layout import (
  GEMMA,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.parts import Part, assemble
from unifluid_jax.weights.problems import describe_misfits
from unifluid_jax.weights.readers.reader import Reader, open_reader
from unifluid_jax.weights.shapes import Config

LAYOUTS: tuple[TensorLayout, ...] = (
  hugging_face_layout.GEMMA_LAYOUT,
  flax_gemma_layout.OFFICIAL_LAYOUT,
  flax_gemma_layout.STACKED_LAYOUT,
  hugging_face_layout.SIGLIP_LAYOUT,
  big_vision_layout.SIGLIP_LAYOUT,
  hugging_face_layout.CONNECTOR_LAYOUT,
  big_vision_layout.CONNECTOR_LAYOUT,
  autoencoder_layout.DIFFUSERS_LAYOUT,
  autoencoder_layout.LDM_LAYOUT,
)


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Selects parts of a file.

  Attributes:
    path: Where they are.
    reader: Their files.
    parts: The parts, by name.
    unused: Tensors that are known and not needed.
    heads: Those of them that must be the embedding table, and its name.
  """

  path: str
  reader: Reader
  parts: dict[str, Part]
  unused: tuple[str, ...]
  heads: Mapping[str, str]

  @property
  def arrays(self) -> dict[str, LazyArray]:
    """All parameters, by UniFluid's names."""
    return {
      name: array
      for part in self.parts.values()
      for name, array in part.arrays.items()
    }

  @property
  def padding(self) -> int:
    """Rows that Gemma's table has after the vocabulary's, for no token."""
    return self.parts[GEMMA].layout.padding if GEMMA in self.parts else 0

  @property
  def configs(self) -> dict[str, Config]:
    """Shapes of the parts, as in the file."""
    return {
      name: part.config
      for name, part in self.parts.items()
      if part.config is not None
    }


def parts_in(path: str) -> tuple[str, ...]:
  """Names of the parts that a file or folder holds.

  Raises:
    UserError: It is no checkpoint, or not complete.
  """
  path = str(to_path(path))
  reader = open_reader(path)
  if native_format.is_own(path):
    return tuple(
      dict.fromkeys(native_format.part_of(name) for name in reader.header)
    )
  return tuple(_find_parts(reader.header, path))


def open_pretrained(
  path: str,
  wanted: Sequence[str] | None = None,
  configs: Mapping[str, Config] | None = None,
) -> Pretrained:
  """Opens a checkpoint and checks its headers.

  Args:
    path: A file or folder, see `readers.reader`.
    wanted: Parts to take, of PARTS; None takes all that the file has.
    configs: Configs that the parts must match. The number of rows of the
      vocabulary and of the position table may differ. Without it
      a config comes from config.json, from a named size that fits, or from
      the shapes.

  Raises:
    UserError: A part or a tensor is missing, left over, of another shape or
      dtype, or the model is unknown. The message lists what and where.
  """
  path = str(to_path(path))
  reader = open_reader(path)
  configs = configs or {}
  if native_format.is_own(path):
    parts = native_format.read_parts(path, reader, wanted)
    pretrained = Pretrained(path, reader, parts, (), {})
    for name in sorted(configs.keys() & pretrained.configs.keys()):
      check_config(name, pretrained.configs[name], configs[name], path)
    return pretrained
  found = _find_parts(reader.header, path)
  wanted = tuple(found) if wanted is None else wanted
  absent = [part for part in wanted if part not in found]
  if absent or not wanted:
    raise UserError(
      f'{path} holds no {" and no ".join(absent) or "model that is known"}; '
      f'its tensors are {", ".join(sorted(reader.header)[:3]) or "none"}, ...'
    )
  described = Described({})
  if any(found[name][0].described for name in wanted):
    described = read_described(path)
  parts = {}
  problems: list[str] = []
  for name in wanted:
    layout, prefix = found[name]
    header = _under(reader.header, prefix)
    config = find_config(layout, header, configs.get(name), described, path)
    parts[name], wrong = assemble(
      layout, prefix, config, described, header, reader
    )
    problems += wrong
  used = {
    part.prefix + piece.theirs
    for part in parts.values()
    for piece in part.pieces
  }
  left, unused = unused_tensors.split(reader, used, found, parts)
  problems += [f'{name} is left over, no table knows it' for name in left]
  if problems:
    raise UserError(describe_misfits(path, problems))
  heads: Mapping[str, str] = {}
  if GEMMA in parts:
    layout, prefix = found[GEMMA]
    table = prefix + layout.anchor
    heads = dict.fromkeys(unused_tensors.text_heads(reader, table), table)
    if not heads and not described.tied:
      raise UserError(
        f'{path} lacks lm_head.weight, which its config.json says is not a '
        'copy of the embedding table (tie_word_embeddings); download it again'
      )
  return Pretrained(path, reader, parts, unused, heads)


def _find_parts(
  header: Header, path: str
) -> dict[str, tuple[TensorLayout, str]]:
  found: dict[str, tuple[TensorLayout, str]] = {}
  for layout in LAYOUTS:
    # big_vision's optimizer state repeats the names.
    prefixes = layout.prefixes(n for n in header if n[:4] != 'opt/')
    if len(prefixes) > 1:
      raise UserError(
        f'{path} holds more than one {layout.part}: under '
        f'{", ".join(map(repr, sorted(prefixes)))}; use a file with one'
      )
    if prefixes:
      found[layout.part] = (layout, prefixes[0])
  return found


def _under(header: Header, prefix: str) -> Header:
  return {
    name.removeprefix(prefix): tensor
    for name, tensor in header.items()
    if name.startswith(prefix)
  }
