"""Opens weights of any known family: finds the parts, checks every tensor.

A file holds parts: a Gemma, an image encoder, the connector between them, a
VAE. Each is recognised by its names. Nothing is read but headers; the arrays
that come out are read where they are wanted.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unifluid_jax.convert import leftover, own
from unifluid_jax.convert.assembly import Assembled, Constant, LazyArray
from unifluid_jax.convert.layouts import (
  autoencoder,
  big_vision,
  flax_gemma,
  hugging_face,
)
from unifluid_jax.convert.layouts.layout import VAE, Header, Layout
from unifluid_jax.convert.readers.dtypes import WEIGHTS
from unifluid_jax.convert.readers.reader import Reader, open_reader
from unifluid_jax.convert.recognise import (
  check_config,
  find_config,
  pieces_of,
  read_configs,
  shape_problems,
)
from unifluid_jax.convert.rules import Piece
from unifluid_jax.convert.shapes import Config, shapes
from unifluid_jax.errors import UserError
from unifluid_jax.models.vae import VAEConfig

LAYOUTS: tuple[Layout, ...] = (
  hugging_face.GEMMA_LAYOUT,
  flax_gemma.OFFICIAL_LAYOUT,
  flax_gemma.STACKED_LAYOUT,
  hugging_face.SIGLIP_LAYOUT,
  big_vision.SIGLIP_LAYOUT,
  hugging_face.CONNECTOR_LAYOUT,
  big_vision.CONNECTOR_LAYOUT,
  autoencoder.DIFFUSERS_LAYOUT,
  autoencoder.LDM_LAYOUT,
)

# How much of a list of problems is told.
_TOLD = 8


@dataclasses.dataclass(frozen=True)
class Part:
  """One part of the model in a file.

  Attributes:
    layout: Its table.
    prefix: What stands before its names.
    config: Its shape, as in the file; None for the connector.
    pieces: Its foreign tensors; their names are without the prefix.
    arrays: Its parameters, by our names.
    carried: Foreign tensors that our model has no place for and an export
      gives back, by their names without the prefix.
  """

  layout: Layout
  prefix: str
  config: Config | None
  pieces: tuple[Piece, ...]
  arrays: dict[str, LazyArray]
  carried: dict[str, LazyArray]


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """The parts of a file that were asked for.

  Attributes:
    path: Where they are.
    reader: Their files.
    parts: The parts, by name.
    aside: Tensors that are known and not needed.
  """

  path: str
  reader: Reader
  parts: dict[str, Part]
  aside: tuple[str, ...]

  @property
  def arrays(self) -> dict[str, LazyArray]:
    """All parameters, by UniFluid's names."""
    return {
      name: array
      for part in self.parts.values()
      for name, array in part.arrays.items()
    }

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
  reader = open_reader(path)
  if own.is_own(path):
    return tuple(dict.fromkeys(own.part_of(name) for name in reader.header))
  return tuple(_find_parts(reader.header, path))


def open_pretrained(
  path: str,
  wanted: Sequence[str] | None = None,
  configs: Mapping[str, Config] | None = None,
) -> Pretrained:
  """Opens a checkpoint and checks its headers.

  Args:
    path: A file or folder, see `readers.reader`.
    wanted: Parts to take, of PARTS; None for all that are there.
    configs: What the parts must be, but for the rows of the vocabulary and of
      the position table, which are taken as they are in the file. Without it
      a config comes from config.json, from a named size that fits, or from
      the shapes.

  Raises:
    UserError: A part or a tensor is missing, left over, of another shape or
      dtype, or the model is unknown. The message lists what and where.
  """
  reader = open_reader(path)
  if own.is_own(path):
    return _open_own(path, reader, wanted, configs or {})
  found = _find_parts(reader.header, path)
  wanted = tuple(found) if wanted is None else wanted
  configs = configs or {}
  absent = [part for part in wanted if part not in found]
  if absent or not wanted:
    raise UserError(
      f'{path} holds no {" and no ".join(absent) or "model that is known"}; '
      f'its tensors are {", ".join(sorted(reader.header)[:3])}, ...'
    )
  described = any(found[name][0].described for name in wanted)
  known = read_configs(reader) if described else {}
  parts: dict[str, Part] = {}
  problems: list[str] = []
  for name in wanted:
    layout, prefix = found[name]
    header = _under(reader.header, prefix)
    config = find_config(
      layout, header, configs.get(name), known.get(name), path
    )
    parts[name], wrong = _assemble(layout, prefix, config, header, reader)
    problems += wrong
  used = {
    part.prefix + piece.theirs
    for part in parts.values()
    for piece in part.pieces
  }
  left, aside = leftover.split(reader, used, found, parts)
  problems += [f'{name} is left over, no table knows it' for name in left]
  if problems:
    raise UserError(_told(path, problems))
  return Pretrained(path, reader, parts, aside)


def _open_own(
  path: str,
  reader: Reader,
  wanted: Sequence[str] | None,
  expected: Mapping[str, Config],
) -> Pretrained:
  configs = own.read_configs(path)
  parts: dict[str, Part] = {}
  for name, tensor in reader.header.items():
    name_of_part = own.part_of(name)
    if wanted is not None and name_of_part not in wanted:
      continue
    part = parts.setdefault(
      name_of_part,
      Part(own.LAYOUT, '', configs.get(name_of_part), (), {}, {}),
    )
    piece = Piece(name, name, own.axes(tensor.shape))
    array = Assembled(
      tensor.shape, np.dtype(tensor.dtype), (piece,), reader.read
    )
    carried = own.carried_name(name)
    if carried is None:
      part.arrays[name] = array
    else:
      part.carried[carried] = array
  absent = [part for part in wanted or () if part not in parts]
  if absent:
    raise UserError(f'{path} holds no {" and no ".join(absent)}')
  for name, config in expected.items():
    if name in parts and name in configs:
      check_config(name, configs[name], config, path)
  _check_own(path, parts)
  return Pretrained(path, reader, parts, ())


def _check_own(path: str, parts: Mapping[str, Part]) -> None:
  """Our own files must be whole, too."""
  problems = []
  for name, part in parts.items():
    if part.config is None:
      continue
    for our_name, shape in shapes(part.config).items():
      array = part.arrays.get(f'{name}/{our_name}')
      if array is None:
        problems.append(f'{name}/{our_name} is missing')
      elif array.shape != shape:
        problems.append(
          f'{name}/{our_name} is {list(array.shape)} where {list(shape)} is '
          'wanted'
        )
  if problems:
    raise UserError(_told(path, problems))


def _find_parts(header: Header, path: str) -> dict[str, tuple[Layout, str]]:
  found: dict[str, tuple[Layout, str]] = {}
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


def _assemble(
  layout: Layout,
  prefix: str,
  config: Config | None,
  header: Header,
  reader: Reader,
) -> tuple[Part, list[str]]:
  pieces = pieces_of(layout, config, header)
  problems: list[str] = []

  def read(theirs: str) -> np.ndarray:
    return reader.read(prefix + theirs)

  if config is None:
    ours = _connector_shapes(pieces, header)
    problems += [
      f'{prefix}{piece.theirs} is missing'
      for piece in pieces
      if piece.theirs not in header
    ]
  else:
    ours = shapes(config)
    problems += shape_problems(layout, prefix, config, header)
  by_ours: dict[str, list[Piece]] = {}
  for piece in pieces:
    by_ours.setdefault(piece.ours, []).append(piece)
    tensor = header.get(piece.theirs)
    if tensor and tensor.dtype not in WEIGHTS:
      problems.append(
        f'{prefix}{piece.theirs} in {tensor.file} is of dtype {tensor.dtype}; '
        f'weights are {", ".join(WEIGHTS)}'
      )
  arrays: dict[str, LazyArray] = {}
  lead = '' if config is None else f'{layout.part}/'
  if not problems:
    for our_name, own_pieces in by_ours.items():
      arrays[lead + our_name] = Assembled(
        ours[our_name],
        _dtype(own_pieces, header),
        tuple(own_pieces),
        read,
      )
    if isinstance(config, VAEConfig):
      arrays |= _statistics(config)
    missing = sorted({lead + our_name for our_name in ours} - {*arrays})
    problems += [f'{our_name} has no source' for our_name in missing]
  carried: dict[str, LazyArray] = {
    theirs: Assembled(
      tensor.shape,
      np.dtype(tensor.dtype),
      (Piece(theirs, theirs, own.axes(tensor.shape)),),
      read,
    )
    for theirs, tensor in header.items()
    if layout.carried and re.search(layout.carried, theirs)
  }
  return Part(layout, prefix, config, tuple(pieces), arrays, carried), problems


def _dtype(pieces: Iterable[Piece], header: Header) -> np.dtype:
  """The widest dtype of the pieces."""
  kinds = {header[piece.theirs].dtype for piece in pieces}
  return np.dtype('float32' if len(kinds) > 1 else kinds.pop())


def _connector_shapes(
  pieces: Sequence[Piece], header: Header
) -> dict[str, tuple[int, ...]]:
  """Shapes of the connector: what its own tensors say."""
  result = {}
  for piece in pieces:
    shape = header[piece.theirs].shape if piece.theirs in header else (1, 1)
    turned = piece.axes.split(' -> ')[0] != piece.axes.split(' -> ')[1]
    result[piece.ours] = shape[::-1] if turned else shape
  return result


def _statistics(config: VAEConfig) -> dict[str, LazyArray]:
  channels = config.latent_channels
  return {
    f'{VAE}/shift': Constant(
      np.full(channels, config.latent_shift, np.float32)
    ),
    f'{VAE}/scale': Constant(
      np.full(channels, config.latent_scale, np.float32)
    ),
  }


def _told(path: str, problems: Sequence[str]) -> str:
  more = len(problems) - _TOLD
  rest = f'; and {more} more' if more > 0 else ''
  return f'{path} does not fit: {"; ".join(problems[:_TOLD])}{rest}'
