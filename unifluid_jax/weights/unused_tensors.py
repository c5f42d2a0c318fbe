"""Finds tensors of a file that no part of our model uses."""

import math
import re
from collections.abc import Collection, Mapping

import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.layouts.tensor_layout import (
  CONNECTOR,
  VAE,
  TensorLayout,
)
from unifluid_jax.weights.readers.reader import Reader

_TIED = re.compile(r'(^|\.)lm_head\.weight$')
# Of other models around the parts.
_ASIDE = re.compile(
  r'^(model\.)?text_model\.|^logit_(scale|bias)$'  # SigLIP's text tower
  r'|(^|\.)multi_modal_projector\.mm_'  # Gemma 3's connector
  r'|^(params/)?txt/|^(params/)?[tb]$|^opt/'  # the same in big_vision
)


def split(
  reader: Reader,
  used: set[str],
  found: Mapping[str, tuple[TensorLayout, str]],
  wanted: Collection[str],
) -> tuple[list[str], tuple[str, ...]]:
  """Tensors that nothing knows, and those that are known but not needed.

  Args:
    reader: The file.
    used: Names that are needed.
    found: Table and prefix of each part that the file has.
    wanted: Parts that are taken.
  """
  left: list[str] = []
  aside: list[str] = []
  for name in sorted({*reader.header} - used):
    known = (
      _ASIDE.search(name)
      or _TIED.search(name)
      or any(
        _belongs(name, layout, prefix, wanted=part in wanted)
        for part, (layout, prefix) in found.items()
      )
    )
    (aside if known else left).append(name)
  return left, tuple(aside)


def _belongs(
  name: str, layout: TensorLayout, prefix: str, wanted: bool
) -> bool:
  """Whether a tensor is of a part, or around it, and not needed."""
  if not name.startswith(prefix):
    # LDM stores its autoencoder inside a diffusion model.
    return layout.part == VAE and bool(prefix)
  own_name = name.removeprefix(prefix)
  if any(re.search(pattern, own_name) for pattern in layout.unused):
    return True
  if wanted:
    return False
  if layout.part == CONNECTOR:
    return own_name in {rule.theirs for rule in layout.rules(None, {})}
  return bool(prefix)


def text_heads(reader: Reader, table: str) -> tuple[str, ...]:
  """Names of text heads, which Gemma's embedding table makes superfluous.

  Args:
    reader: The file.
    table: Name of the embedding table.

  Raises:
    UserError: The shape of a head is not the table's.
  """
  heads = tuple(name for name in reader.header if _TIED.search(name))
  for name in heads:
    if reader.header[name].shape != reader.header[table].shape:
      raise _untied(reader, name)
  return heads


def check_tied(reader: Reader, head: str, table: str) -> None:
  """Reads a text head, which must be the embedding table.

  Raises:
    UserError: It is another.
  """
  ours, theirs = reader.read(table), reader.read(head)
  step = max(1, (1 << 24) // max(math.prod(ours.shape[1:]), 1))
  for i in range(0, len(ours), step):
    part = slice(i, i + step)
    if not np.array_equal(ours[part], theirs[part], equal_nan=True):
      raise _untied(reader, head)


def _untied(reader: Reader, head: str) -> UserError:
  return UserError(
    f'{head} in {reader.header[head].file} is not the embedding table; '
    'Gemma has one table for both'
  )
