"""What a part of a file is: its config, and how its tensors fit it."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from unifluid_jax.models.gemma import LOCAL, GemmaConfig
from unifluid_jax.models.siglip import SiglipConfig
from unifluid_jax.models.sizes import GEMMA_SIZES, SIGLIP_SIZES, VAE_SIZES
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.hf_config import Described, from_json
from unifluid_jax.weights.layouts.tensor_layout import (
  CONNECTOR,
  ENCODER,
  GEMMA,
  VAE,
  Header,
  TensorLayout,
)
from unifluid_jax.weights.readers import json_file
from unifluid_jax.weights.rules import Piece, expand
from unifluid_jax.weights.shapes import Config, shapes

_SIZES: Mapping[str, Mapping[str, Config]] = {
  GEMMA: GEMMA_SIZES,
  ENCODER: SIGLIP_SIZES,
  VAE: VAE_SIZES,
}


def check_config(part: str, found: Config, wanted: Config, path: str) -> None:
  """Checks that a file's config is the one that is wanted.

  Rows of tables may differ: surgery can mend those.

  Raises:
    UserError: Anything else differs.
  """
  if type(found) is not type(wanted):
    raise UserError(f'{path}: {part} is another kind of model')
  a, b = _comparable(found), _comparable(wanted)
  wrong = [
    f'{key} is {a[key]} in the file and {b[key]} in the config'
    for key in a
    if not _same(a[key], b[key])
  ]
  if wrong:
    raise UserError(
      f'{path} has another {part} than the config: {"; ".join(wrong)}'
    )


def named_config(size: str) -> tuple[str, Config]:
  """Part and config of a named size, such as gemma2_2b.

  Raises:
    UserError: No model has that name.
  """
  for part, sizes in _SIZES.items():
    if size in sizes and size != 'tiny':
      return part, sizes[size]
  known = [n for sizes in _SIZES.values() for n in sizes if n != 'tiny']
  raise UserError(f'unknown model {size!r}; known are {", ".join(known)}')


def read_described(path: str) -> Described:
  """What the config.json in a folder, or beside a file, says if there is one.

  Raises:
    UserError: It is damaged, or of a model that is not known.
  """
  source = pathlib.Path(path)
  file = (source if source.is_dir() else source.parent) / 'config.json'
  content = json_file.read_if_there(file)
  return Described({}) if content is None else from_json(content, str(file))


def find_config(
  layout: TensorLayout,
  header: Header,
  wanted: Config | None,
  described: Described,
  path: str,
) -> Config | None:
  """What a part is: as its config.json says, else with the file's own rows.

  Args:
    layout: Its table.
    header: Its tensors, names without the prefix.
    wanted: What it must be, if that is known.
    described: What config.json says.
    path: What messages call the file.

  Returns:
    The config; None for the connector, which has none.

  Raises:
    UserError: It is not what is wanted, or it is unknown.
  """
  if layout.part == CONNECTOR:
    return None
  known = described.configs.get(layout.part)
  if wanted is not None and known is not None:
    if described.latents and isinstance(known, VAEConfig):
      # What was measured stands in place of the config's initial values.
      assert isinstance(wanted, VAEConfig)
      shift, scale = wanted.latent_shift, wanted.latent_scale
      known = dataclasses.replace(known, latent_shift=shift, latent_scale=scale)
    check_config(layout.part, known, wanted, path)
  if known is not None:
    return known
  config = wanted or _fitting(layout, header)
  if config is None and layout.infer:
    try:
      config = layout.infer(header)
      shapes(config)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
      raise UserError(
        f'{path} is not a whole {layout.title}: {error}'
      ) from error
  if config is None:
    raise UserError(
      f'{path} is a {layout.title} of an unknown model: no named size fits and '
      'there is no config.json beside it; download that too'
    )
  return _as_in_file(config, layout, header)


def _fitting(layout: TensorLayout, header: Header) -> Config | None:
  """The one named size whose tensors these are."""
  for name, config in _SIZES[layout.part].items():
    config = _as_in_file(config, layout, header)
    if name != 'tiny' and not shape_problems(layout, '', config, header):
      return config
  return None


def _as_in_file(config: Config, layout: TensorLayout, header: Header) -> Config:
  """The config with the file's own rows of the tables that surgery changes.

  A vocabulary that is padded a little keeps its own size.
  """
  by_ours = {rule.ours: rule.theirs for rule in layout.rules(config, header)}
  if isinstance(config, GemmaConfig):
    tensor = header.get(by_ours['embedding'])
    if tensor and len(tensor.shape) == 2:
      return dataclasses.replace(config, vocab_size=tensor.shape[0])
  if isinstance(config, SiglipConfig):
    tensor = header.get(by_ours['position_embedding'])
    if tensor and len(tensor.shape) >= 2:
      side = math.isqrt(tensor.shape[-2])
      if side**2 == tensor.shape[-2] and side**2 != config.tokens:
        size = side * config.patch_size
        return dataclasses.replace(config, image_size=size)
  return config


def pieces_of(
  layout: TensorLayout, config: Config | None, header: Header
) -> list[Piece]:
  """The foreign tensors of a part."""
  layers = getattr(config, 'layers', 0)
  return expand(layout.rules(config, header), layers)


def shape_problems(
  layout: TensorLayout, prefix: str, config: Config, header: Header
) -> list[str]:
  """Lists missing tensors and shapes that differ, of a part with a config."""
  ours = shapes(config)
  problems = []
  for piece in pieces_of(layout, config, header):
    tensor = header.get(piece.theirs)
    name = prefix + piece.theirs
    if tensor is None:
      problems.append(f'{name} is missing')
      continue
    wanted = piece.shape(ours[piece.ours])
    same = len(wanted) == len(tensor.shape) and all(
      b in (None, a) for a, b in zip(tensor.shape, wanted, strict=True)
    )
    if not same:
      problems.append(
        f'{name} in {tensor.file} is {list(tensor.shape)} where '
        f'{[n or "any" for n in wanted]} is wanted'
      )
  return problems


def _comparable(config: Config) -> dict[str, Any]:
  fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
  if isinstance(config, GemmaConfig):
    fields['pattern'] = config.layer_kinds
    fields['query_scale'] = config.query_scale or config.head_dim**-0.5
    if LOCAL not in config.layer_kinds:
      fields |= {'window': None, 'local_rope_theta': None}
  for rows in ('vocab_size', 'image_size'):
    fields.pop(rows, None)
  return fields


def _same(a: object, b: object) -> bool:
  if isinstance(a, float) and isinstance(b, float):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
  return a == b
