"""The parts of a file: our parameters, assembled from its tensors."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.weights.assembly import Assembled, Constant, LazyArray
from unifluid_jax.weights.format_detection import pieces_of, shape_problems
from unifluid_jax.weights.hf_config import Described
from unifluid_jax.weights.layouts.tensor_layout import (
  VAE,
  Header,
  Tensor,
  TensorLayout,
)
from unifluid_jax.weights.readers.dtypes import WEIGHTS
from unifluid_jax.weights.readers.reader import Reader
from unifluid_jax.weights.rules import Piece
from unifluid_jax.weights.shapes import Config, shapes


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
    mixed: Two tensors of different dtypes, of each parameter that has such.
  """

  layout: TensorLayout
  prefix: str
  config: Config | None
  pieces: tuple[Piece, ...]
  arrays: dict[str, LazyArray]
  carried: dict[str, LazyArray]
  mixed: dict[str, str] = dataclasses.field(default_factory=dict)


def as_it_is(
  name: str,
  tensor: Tensor,
  read: Callable[[str], np.ndarray],
  prefix: str = '',
) -> Assembled:
  """An array that is a whole tensor of a file, with the same axes.

  Args:
    name: Its name, without the prefix.
    tensor: What is known of it.
    read: Reads it, given its name.
    prefix: What stands before its name in the file.
  """
  axes = ' '.join(f'a{i}' for i in range(len(tensor.shape)))
  piece = Piece(name, name, f'{axes} -> {axes}')
  return Assembled(
    tensor.shape,
    np.dtype(tensor.dtype),
    (piece,),
    read,
    lambda theirs: f'{prefix}{theirs} in {tensor.file}',
  )


def assemble(
  layout: TensorLayout,
  prefix: str,
  config: Config | None,
  described: Described,
  header: Header,
  reader: Reader,
) -> tuple[Part, list[str]]:
  """One part of a file, and its problems.

  Args:
    layout: Its table.
    prefix: What stands before its names.
    config: Its shape, None for the connector.
    described: What config.json says, for what no tensor holds.
    header: Its tensors, names without the prefix.
    reader: The file.
  """
  pieces = pieces_of(layout, config, header)

  def read(theirs: str) -> np.ndarray:
    return reader.read(prefix + theirs)

  if config is None:
    ours = _connector_shapes(pieces, header)
    problems = [
      f'{prefix}{piece.theirs} is missing'
      for piece in pieces
      if piece.theirs not in header
    ]
  else:
    ours = shapes(config)
    problems = shape_problems(layout, prefix, config, header)
  carried = {
    theirs: tensor
    for theirs, tensor in header.items()
    if layout.carried and re.search(layout.carried, theirs)
  }
  by_ours: dict[str, list[Piece]] = {}
  for piece in pieces:
    by_ours.setdefault(piece.ours, []).append(piece)
  problems += _dtype_problems(
    prefix, header, [*(piece.theirs for piece in pieces), *carried]
  )
  arrays: dict[str, LazyArray] = {}
  mixed: dict[str, str] = {}
  lead = '' if config is None else f'{layout.part}/'
  if not problems:
    for our_name, own_pieces in by_ours.items():
      kinds = _dtypes(own_pieces, header)
      dtype = np.dtype('float32' if len(kinds) > 1 else min(kinds))
      arrays[lead + our_name] = Assembled(
        ours[our_name],
        dtype,
        tuple(own_pieces),
        read,
        functools.partial(_title, lead + our_name, prefix, header),
      )
      if len(kinds) > 1:
        mixed[lead + our_name] = ' and '.join(
          f'{prefix}{theirs} in {kind}' for kind, theirs in kinds.items()
        )
    if isinstance(config, VAEConfig):
      arrays |= _statistics(config, described)
    missing = sorted({lead + our_name for our_name in ours} - {*arrays})
    problems += [f'{our_name} has no source' for our_name in missing]
  kept: dict[str, LazyArray] = {}
  if not problems:
    kept = {
      name: as_it_is(name, tensor, read, prefix)
      for name, tensor in carried.items()
    }
  return (
    Part(layout, prefix, config, tuple(pieces), arrays, kept, mixed),
    problems,
  )


def _title(ours: str, prefix: str, header: Header, theirs: str) -> str:
  """Returns the name of a foreign tensor for messages."""
  return f'{prefix}{theirs} in {header[theirs].file} (our {ours})'


def _dtype_problems(
  prefix: str, header: Header, names: Iterable[str]
) -> list[str]:
  return [
    f'{prefix}{name} in {header[name].file} is of dtype {header[name].dtype}; '
    f'weights are {", ".join(WEIGHTS)}'
    for name in names
    if name in header and header[name].dtype not in WEIGHTS
  ]


def _dtypes(pieces: Iterable[Piece], header: Header) -> dict[str, str]:
  """The dtypes of the pieces, each with the first that has it."""
  kinds: dict[str, str] = {}
  for piece in pieces:
    kinds.setdefault(header[piece.theirs].dtype, piece.theirs)
  return kinds


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


def _statistics(
  config: VAEConfig, described: Described
) -> dict[str, LazyArray]:
  """Shift and scale of the latents, which no file holds as tensors."""
  channels = config.latent_channels
  shift, scale = described.latents or (
    np.full(channels, value, np.float32)
    for value in (config.latent_shift, config.latent_scale)
  )
  return {f'{VAE}/shift': Constant(shift), f'{VAE}/scale': Constant(scale)}
