"""Starts a run from files: what its `init` section names, and nothing else."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from unifluid_jax.config.sections.init import InitConfig
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.models.unifluid import ModelConfig
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.utils.errors import Collector, UserError, check_matches
from unifluid_jax.weights import native_format, surgery
from unifluid_jax.weights.assembly import LazyArray
from unifluid_jax.weights.layouts.tensor_layout import (
  CONNECTOR,
  ENCODER,
  GEMMA,
  VAE,
)
from unifluid_jax.weights.placement import place
from unifluid_jax.weights.pretrained import (
  Pretrained,
  open_pretrained,
  parts_in,
)
from unifluid_jax.weights.provenance import verify
from unifluid_jax.weights.shapes import Config

Targets = Mapping[str, jax.ShapeDtypeStruct]

_MOST_LISTED = 8


def load_model(
  init: InitConfig, model: ModelConfig, targets: Targets
) -> Parameters:
  """Parameters of the model from the files that `init` names.

  Args:
    init: The section.
    model: Shapes of the model.
    targets: Shape, dtype and sharding of each parameter of the model.

  Raises:
    UserError: A file does not fit, see `open_pretrained`.
  """
  loaded: Parameters = {}
  for path in model_files(init):
    source, arrays = open_model_file(init, model, path)
    verify(source)
    loaded |= place(arrays, targets)
  return loaded


def model_files(init: InitConfig) -> list[str]:
  """The files and folders that `init` names for the model."""
  return [*dict.fromkeys(path for path in _parts_of(init).values() if path)]


def open_model_file(
  init: InitConfig, model: ModelConfig, path: str
) -> tuple[Pretrained, dict[str, LazyArray]]:
  """Opens one of `model_files`; reads headers only.

  Args:
    init: The section.
    model: Shapes of the model.
    path: The file or folder.

  Returns:
    What it is, and the parameters that it gives to the model.

  Raises:
    UserError: It does not fit, see `open_pretrained`.
  """
  configs: dict[str, Config] = {GEMMA: model.gemma, ENCODER: model.encoder}
  parts = [part for part, named in _parts_of(init).items() if named == path]
  if len(parts) > 1 and CONNECTOR in parts_in(path):
    parts.append(CONNECTOR)
  source = open_pretrained(path, parts, configs)
  arrays = surgery.fit(
    source.arrays,
    source.configs,
    configs,
    new_rows=init.new_rows,
    resize_positions=init.resize_positions,
    path=path,
    padding=source.padding,
  )
  return source, arrays


def _parts_of(init: InitConfig) -> dict[str, str]:
  return {GEMMA: init.backbone, ENCODER: init.encoder}


def check_vae_file(path: str, config: VAEConfig) -> None:
  """Checks that a file holds a VAE; reads headers only.

  Raises:
    UserError: The file does not fit.
  """
  open_pretrained(path, (VAE,), {VAE: config})


def load_vae(path: str, config: VAEConfig, targets: Targets) -> Parameters:
  """Parameters of a VAE from a file.

  Args:
    path: The file or folder.
    config: Shape of the VAE.
    targets: Shape, dtype and sharding of each parameter of the VAE.

  Raises:
    UserError: The file does not fit.
  """
  source = open_pretrained(path, (VAE,), {VAE: config})
  verify(source)
  arrays = {
    name.removeprefix(f'{VAE}/'): array for name, array in source.arrays.items()
  }
  return place(arrays, targets)


def check_complete(
  init: InitConfig, loaded: Iterable[str], names: Iterable[str]
) -> None:
  """Checks that only parameters that `init` allows start from fresh values.

  Args:
    init: The section.
    loaded: Names of the parameters that a source gives.
    names: Names of all parameters of the model.

  Raises:
    UserError: A parameter has no source and does not match `init.new`, or a
      pattern matches no parameter.
  """
  loaded, names = {*loaded}, sorted(names)
  check_patterns(init, names)
  if not init.sources:
    return
  random = [
    name
    for name in names
    if name not in loaded
    and not any(re.search(pattern, name) for pattern in init.new)
  ]
  if random:
    more = (
      f' and {len(random) - _MOST_LISTED} more'
      if len(random) > _MOST_LISTED
      else ''
    )
    raise UserError(
      f'init gives no source for {len(random)} parameters: '
      f'{", ".join(random[:_MOST_LISTED])}{more}; name a source, or list them '
      'in init.new to start them fresh'
    )


def check_patterns(init: InitConfig, names: Collection[str]) -> None:
  """Checks that every pattern of `init` is for some parameter.

  Args:
    init: The section.
    names: Names of all parameters of the model.

  Raises:
    UserError: A pattern matches none.
  """
  problems = Collector()
  for key in ('new', 'frozen', 'dtype'):
    for entry in getattr(init, key):
      pattern = entry.rpartition('=')[0] if key == 'dtype' else entry
      with problems.catch():
        check_matches(f'init.{key} has {entry!r}', pattern, names)
  problems.check()


class Exported(NamedTuple):
  """What an exported UniFluid is.

  Attributes:
    experiment: The whole config, as plain dictionaries.
    step: Steps that it was trained for; None where that is not known.
  """

  experiment: dict[str, Any]
  step: int | None


def read_exported(folder: str) -> Exported:
  """What the config.json of an exported UniFluid says.

  Raises:
    UserError: It is only a part of one, or it is damaged.
  """
  metadata = native_format.read_metadata(folder)
  if 'experiment' not in metadata:
    raise UserError(
      f'{folder} holds only {", ".join(metadata["parts"])}, no whole UniFluid; '
      'name it in the init section of a training'
    )
  step, experiment = metadata.get('step'), metadata['experiment']
  if step is not None and type(step) is not int:
    raise UserError(f'{folder} is damaged: step is {step!r}; copy it again')
  if not isinstance(experiment, dict):
    raise UserError(
      f'{folder} is damaged: experiment is {experiment!r}; copy it again'
    )
  return Exported(experiment, step)


def load_exported(
  folder: str, shardings: Mapping[str, jax.sharding.Sharding]
) -> tuple[Parameters, Parameters]:
  """Reads the parameters of an exported UniFluid and its VAE.

  Args:
    folder: The folder.
    shardings: Where each parameter of its config is to lie.

  Raises:
    UserError: A file is missing or damaged.
  """
  source = open_pretrained(folder)
  verify(source)
  differing = sorted(shardings.keys() ^ source.arrays.keys())
  if differing:
    raise UserError(
      f'{folder} is damaged: its tensors are not those of its config.json '
      f'({", ".join(differing[:_MOST_LISTED])}); export it again'
    )
  targets = {
    name: jax.ShapeDtypeStruct(
      array.shape, array.dtype, sharding=shardings[name]
    )
    for name, array in source.arrays.items()
  }
  placed = place(source.arrays, targets)
  prefix = f'{VAE}/'
  vae = {
    name.removeprefix(prefix): value
    for name, value in placed.items()
    if name.startswith(prefix)
  }
  model = {n: v for n, v in placed.items() if not n.startswith(prefix)}
  return model, vae
