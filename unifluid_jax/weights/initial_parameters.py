"""What a run of UniFluid starts from: its `init` section, and its VAE."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import NetworkSpec
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.sharding import mesh as mesh_lib
from unifluid_jax.utils.errors import Collector, UserError
from unifluid_jax.utils.paths import to_path
from unifluid_jax.weights.init_from_files import (
  check_complete,
  check_vae_file,
  load_model,
  model_files,
  open_model_file,
)
from unifluid_jax.weights.restore import (
  abstract_ema_weights,
  restore_ema_weights,
)
from unifluid_jax.workdir.run_config import read_experiment
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

# What knows the VAE's tokens.
_OF_TOKENS = '^(token_in|source_in|head/)'


def load_start(
  experiment: Experiment, spec: NetworkSpec, vae: Parameters
) -> Parameters:
  """Loads the parameters that `init` names a source for, sharded.

  Args:
    experiment: The config.
    spec: UniFluid.
    vae: Parameters of the VAE that the run will train on.

  Raises:
    UserError: A source does not fit, or a parameter has none and may not be
      fresh.
  """
  init = experiment.init
  targets = spec.place(mesh_lib.make_mesh(experiment.mesh))
  start: Parameters = {}
  if init.workdir:
    start |= _load_from_run(experiment, targets, vae)
  start |= load_model(init, experiment.model, targets)
  check_complete(init, start, targets)
  return start


def check_start_files(experiment: Experiment, spec: NetworkSpec) -> None:
  """Checks the sources that `init` names by their headers.

  Args:
    experiment: The config.
    spec: UniFluid.

  Raises:
    UserError: For all sources that are missing or do not fit, and for
      parameters that have none and may not be fresh.
  """
  init, targets = experiment.init, spec.abstract_parameters
  problems = Collector()
  given: set[str] = set()
  if init.vae:
    with problems.catch():
      check_vae_file(init.vae, experiment.vae)
  for path in model_files(init):
    with problems.catch():
      given |= {*open_model_file(init, experiment.model, path)[1]}
  if init.workdir:
    with problems.catch():
      given |= {*_check_run(experiment, targets)}
  problems.check()
  check_complete(init, given, targets)


def _load_from_run(
  experiment: Experiment,
  targets: dict[str, jax.ShapeDtypeStruct],
  vae: Parameters,
) -> Parameters:
  """The EMA weights of another run that `init` names.

  Raises:
    UserError: The run does not exist, or a parameter has another shape,
      or it knows the tokens of another VAE.
  """
  workdir = to_path(experiment.init.workdir)
  run = read_experiment(workdir)
  weights = restore_ema_weights(
    run,
    Tokenizer.load(workdir / TOKENIZER_FILE),
    workdir,
    mesh_lib.make_mesh(experiment.mesh),
  )
  found = weights.unifluid
  wanted = _wanted(experiment, targets, found)
  _check_bound(experiment, run, wanted, lambda: _is_same(weights.vae, vae))
  return {
    name: _cast(name, found[name], target) for name, target in wanted.items()
  }


def _check_run(
  experiment: Experiment, targets: Mapping[str, Any]
) -> Iterable[str]:
  """The names that the run of `init` gives, found without reading arrays.

  Raises:
    UserError: As `load_start`, except that the VAE's values may differ.
  """
  workdir = to_path(experiment.init.workdir)
  run = read_experiment(workdir)
  tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
  weights = abstract_ema_weights(run, tokenizer, workdir)
  wanted = _wanted(experiment, targets, weights.unifluid)
  _check_bound(experiment, run, wanted, lambda: True)
  return wanted


def _wanted(
  experiment: Experiment, targets: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
  """Selects the parameters to take from another run.

  Raises:
    UserError: The run lacks them, or none are selected.
  """
  wanted = {
    name: shape
    for name, shape in targets.items()
    if any(re.search(p, name) for p in experiment.init.parameters)
  }
  wrong = [
    f'{name} {shape.shape}'
    for name, shape in wanted.items()
    if name not in found or found[name].shape != shape.shape
  ]
  if wrong or not wanted:
    raise UserError(
      f'init.workdir: {experiment.init.workdir} cannot give '
      f'{", ".join(wrong[:5]) or "anything"}; use a run of the same model, or '
      'other init.parameters'
    )
  return wanted


def _check_bound(
  experiment: Experiment,
  run: Experiment,
  wanted: Iterable[str],
  is_same: Callable[[], bool],
) -> None:
  """Rejects parameters that know the tokens of another VAE."""
  bound = [name for name in wanted if re.search(_OF_TOKENS, name)]
  if bound and not (run.vae == experiment.vae and is_same()):
    raise UserError(
      f'init.workdir: {experiment.init.workdir} was trained on another VAE, '
      f'whose tokens {bound[0]} knows; take its folder vae/ too (or the same '
      'init.vae), or leave token_in, source_in and head/ out of '
      'init.parameters'
    )


def _cast(
  name: str, value: jax.Array, target: jax.ShapeDtypeStruct
) -> jax.Array:
  """A parameter in the dtype and at the place of its target.

  Raises:
    UserError: `init.dtype` asks for a dtype that is too small for a value.
  """
  result = jax.device_put(value.astype(target.dtype), target.sharding)
  if target.dtype != value.dtype:
    too_large = int(jax.jit(lambda x: (~jnp.isfinite(x)).sum())(result))
    if too_large:
      raise UserError(
        f'init.dtype keeps {name} in {target.dtype}, which is too small for '
        f'{too_large} of its values; choose float32 or bfloat16 for it'
      )
  return result


def _is_same(one: Parameters, other: Parameters) -> bool:
  """Whether parameters on one mesh are equal to the last bit."""

  def equal(one, other):
    return jnp.stack(
      [jnp.array_equal(one[name], other[name]) for name in sorted(one)]
    ).all()

  shapes = [{k: v.shape for k, v in flat.items()} for flat in (one, other)]
  return shapes[0] == shapes[1] and bool(jax.jit(equal)(one, other))
