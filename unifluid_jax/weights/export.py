"""Exports models in the layouts of other projects and in our own."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import native_format
from unifluid_jax.weights.assembly import LazyArray, Slices, fill, index, read
from unifluid_jax.weights.configs import (
  autoencoder_config as autoencoder_config,
)
from unifluid_jax.weights.configs import gemma_config, siglip_config
from unifluid_jax.weights.copying import copy
from unifluid_jax.weights.format_detection import check_config, pieces_of
from unifluid_jax.weights.hf_config import from_json
from unifluid_jax.weights.layouts import autoencoder_layout, hugging_face_layout
from unifluid_jax.weights.layouts.tensor_layout import (
  ENCODER,
  GEMMA,
  VAE,
  TensorLayout,
)
from unifluid_jax.weights.model_card import model_card
from unifluid_jax.weights.rules import Piece
from unifluid_jax.weights.safetensors_file import (
  Entry,
  entry,
  new_folder,
  write,
  write_json,
)
from unifluid_jax.weights.shapes import Config
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

DtypeOf = Callable[[str, np.dtype], np.dtype]
"""Dtype to write a parameter in, from its name and its own dtype."""


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model, or parts of one, to export.

  Attributes:
    arrays: Parameters, by UniFluid's names; the VAE's under 'vae/'.
    configs: Config of each part.
    carried: Foreign tensors to give back, by part and foreign name.
    prefixes: Prefix that the names of each part had.
    experiment: The whole config, of a whole UniFluid.
    step: Steps that a whole UniFluid was trained for.
    tokenizer: SentencePiece model, of a whole UniFluid.
    source: Where the weights come from, for the metadata.
  """

  arrays: Mapping[str, LazyArray]
  configs: Mapping[str, Config]
  carried: Mapping[str, Mapping[str, LazyArray]] = dataclasses.field(
    default_factory=dict
  )
  prefixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  experiment: Mapping[str, Any] | None = None
  step: int | None = None
  tokenizer: bytes | None = None
  source: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Held:
  """An array that is in memory already, as a `LazyArray`."""

  value: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""
    return self.value.shape

  @property
  def dtype(self) -> np.dtype:
    """Its dtype."""
    return np.dtype(self.value.dtype)

  def read_into(self, out: np.ndarray, where: Slices) -> None:
    """Writes the part `where` into `out`, in the dtype of `out`."""
    copy(out, np.asarray(self.value)[index(where)])


@dataclasses.dataclass(frozen=True)
class _Target:
  """A layout of another project.

  Attributes:
    part: What it holds.
    layout: Its table.
    stem: Name of its file, without the suffix.
    prefixes: Prefixes that it may have; the first one unless the source had
      another of them.
  """

  part: str
  layout: TensorLayout
  stem: str
  prefixes: tuple[str, ...]


OWN = 'unifluid'
"""Name of our own layout, which holds any model."""

TARGETS = {
  'gemma': _Target(
    GEMMA, hugging_face_layout.GEMMA_LAYOUT, 'model', ('model.',)
  ),
  'siglip': _Target(
    ENCODER, hugging_face_layout.SIGLIP_LAYOUT, 'model', ('vision_model.', '')
  ),
  'autoencoder': _Target(
    VAE, autoencoder_layout.DIFFUSERS_LAYOUT, 'diffusion_pytorch_model', ('',)
  ),
}
"""Layouts of transformers and diffusers, by the name of the model."""


def export(
  weights: Weights, target: str, out: pathlib.Path, dtype_of: DtypeOf
) -> None:
  """Exports one part in the layout of transformers or diffusers.

  Args:
    weights: The model.
    target: A key of TARGETS.
    out: Folder to make.
    dtype_of: Dtype of each tensor, from our name of it.

  Raises:
    UserError: The model has no such part, the layout cannot hold it, or a
      value is not finite or too large for its dtype.
  """
  chosen = TARGETS[target]
  part = chosen.part
  config = weights.configs.get(part)
  if config is None:
    raise UserError(
      f'there is no {part} to export; there are '
      f'{", ".join(weights.configs) or "no parts"}'
    )
  given = weights.prefixes.get(part)
  prefix = given if given in chosen.prefixes else chosen.prefixes[0]
  entries = {}
  for piece in pieces_of(chosen.layout, config, {}):
    ours = f'{part}/{piece.ours}'
    array = weights.arrays[ours]
    entries[prefix + piece.theirs] = _entry(
      ours, piece, array, dtype_of(ours, array.dtype)
    )
  carried = {
    name: array
    for name, array in weights.carried.get(part, {}).items()
    if chosen.layout.carried and re.search(chosen.layout.carried, name)
  }
  for name, array in carried.items():
    named = f'{part}/{name}'
    entries[prefix + name] = entry(named, array, dtype_of(named, array.dtype))
  kinds = {str(tensor.dtype) for tensor in entries.values()}
  dtype = kinds.pop() if len(kinds) == 1 else 'float32'
  content = _json(weights, part, config, dtype)
  _check_said(part, config, content)
  if carried:
    content['vision_use_head'] = True
  with new_folder(out) as folder:
    write(folder, chosen.stem, entries)
    write_json(folder / native_format.CONFIG_FILE, content)
    if weights.tokenizer is not None and part == GEMMA:
      (folder / TOKENIZER_FILE).write_bytes(weights.tokenizer)


def export_own(
  weights: Weights, out: pathlib.Path, dtype_of: DtypeOf
) -> dict[str, str]:
  """Exports weights in our own layout, see `native_format`.

  Args:
    weights: The model or its parts.
    out: Folder to make.
    dtype_of: Dtype of each parameter.

  Returns:
    SHA-256 of each tensor.

  Raises:
    UserError: A value is not finite, or too large for its dtype.
  """
  entries = {
    name: entry(name, array, dtype_of(name, array.dtype))
    for name, array in weights.arrays.items()
  }
  for part, tensors in weights.carried.items():
    for name, array in tensors.items():
      ours = f'{part}/{name}'
      dtype = dtype_of(ours, array.dtype)
      entries[f'{native_format.CARRIED}{ours}'] = entry(ours, array, dtype)
  with new_folder(out) as folder:
    checksums = write(folder, 'model', entries)
    more: dict[str, Any] = {}
    if weights.experiment is not None:
      more |= {'step': weights.step, 'experiment': weights.experiment}
    content = native_format.describe(
      weights.configs,
      **more,
      source=dict(weights.source),
      prefixes=dict(weights.prefixes),
      checksums=checksums,
    )
    write_json(folder / native_format.CONFIG_FILE, content)
    if weights.tokenizer is not None:
      (folder / TOKENIZER_FILE).write_bytes(weights.tokenizer)
    if weights.experiment is not None:
      card = model_card(entries, weights.experiment, weights.step)
      (folder / 'README.md').write_text(card, encoding='utf-8')
  return checksums


def _entry(name: str, piece: Piece, ours: LazyArray, dtype: np.dtype) -> Entry:
  """A foreign tensor that is read from ours."""
  left, right = piece.axes.split(' -> ')
  if left == right and piece.layer is None:
    return entry(name, ours, dtype)
  shape = tuple(n for n in piece.shape(ours.shape) if n is not None)

  def chunks() -> Iterator[np.ndarray]:
    theirs = np.empty(shape, dtype)
    view = piece.view(theirs, ours.shape)
    fixed = tuple(
      axis for axis, at in enumerate(piece.where) if isinstance(at, int)
    )
    where = tuple(
      slice(at, at + 1) if isinstance(at, int) else slice(0, size)
      for at, size in zip(piece.where, ours.shape, strict=True)
    )
    fill(ours, np.expand_dims(view, fixed), where, name)
    yield theirs

  return Entry(shape, dtype, chunks)


def _check_said(part: str, config: Config, content: Mapping[str, Any]) -> None:
  """Checks that a config.json describes a part completely."""
  if part == VAE:
    return  # Measured statistics stand in place of its config's.
  try:
    said = from_json(content, native_format.CONFIG_FILE).configs[part]
    check_config(part, said, config, native_format.CONFIG_FILE)
  except UserError as error:
    raise UserError(
      f'transformers has no such {part}: {error}; export it with --to={OWN}'
    ) from error


def _json(
  weights: Weights, part: str, config: Any, dtype: str
) -> dict[str, Any]:
  if part == GEMMA:
    return gemma_config.write(config, dtype)
  if part == ENCODER:
    return siglip_config.write(config, dtype)
  shift, scale = (
    read(weights.arrays[f'{VAE}/{name}'], None, np.float32, f'{VAE}/{name}')
    for name in autoencoder_layout.STATISTICS
  )
  return autoencoder_config.write(config, (shift, scale))
