"""Trained weights, from the checkpoints of a run or from an export."""

from typing import Any, NamedTuple

import jax

from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec, make_model_spec
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.sharding.mesh import (
  MeshConfig,
  abstract_state,
  make_mesh,
  shardings_of,
)
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights import native_format
from unifluid_jax.weights.checkpoint_reader import CheckpointReader
from unifluid_jax.weights.init_from_files import load_exported, read_exported
from unifluid_jax.weights.layouts.tensor_layout import VAE
from unifluid_jax.workdir.run_config import read_experiment
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

Arrays = dict[str, Any]
"""Arrays, or their shapes and dtypes, by name."""


class EMAWeights(NamedTuple):
  """EMA weights of a checkpoint or an export.

  Attributes:
    unifluid: UniFluid's parameters: moving averages, and those not trained.
    vae: The VAE's parameters.
    step: Steps that they were trained for.
  """

  unifluid: Arrays
  vae: Arrays
  step: int


class Trained(NamedTuple):
  """A trained model: config, vocabulary, spec and weights.

  Attributes:
    experiment: The config that it was trained with.
    tokenizer: The vocabulary.
    spec: The model without its weights.
    weights: The weights.
  """

  experiment: Experiment
  tokenizer: Tokenizer
  spec: ModelSpec
  weights: EMAWeights


class _EMAState(NamedTuple):
  """The fields of a training state that are read, see `TrainState`."""

  step: Any
  frozen: Arrays
  vae: Arrays
  ema: Arrays


def read_trained(workdir: AnyPath, mesh: jax.sharding.Mesh) -> Trained:
  """Reads the newest checkpoint of a run, or a whole export.

  Args:
    workdir: Folder of the run or of the export.
    mesh: Where the parameters are to lie.

  Raises:
    UserError: The folder holds no run, is incomplete, or its checkpoint belongs
      to another config.
  """
  # If a file is damaged, the other files show what the folder was.
  is_run = (workdir / 'checkpoints').exists()
  if not is_run and native_format.is_own(str(workdir)):
    exported = read_exported(str(workdir))
    experiment = build(Experiment, exported.experiment)
    tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
    spec = _spec_of(experiment, tokenizer)
    # An export of before the step was kept was mostly of a whole training.
    step = exported.step
    step = experiment.training.steps if step is None else step
    weights = _read_export(spec, workdir, mesh, step)
  else:
    experiment = read_experiment(workdir)
    tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
    spec = _spec_of(experiment, tokenizer)
    weights = restore_ema_weights(experiment, tokenizer, workdir, mesh)
  return Trained(experiment, tokenizer, spec, weights)


def restore_ema_weights(
  experiment: Experiment,
  tokenizer: Tokenizer,
  workdir: AnyPath,
  mesh: jax.sharding.Mesh | None = None,
) -> EMAWeights:
  """Reads the newest checkpoint of a run.

  The optimizer and what the average is of are not read.

  Args:
    experiment: The run's config.
    tokenizer: The run's vocabulary.
    workdir: The run's folder.
    mesh: Where they are to lie; None for the first device of this process.

  Raises:
    UserError: No checkpoint is complete, or it was made with another config.
  """
  spec = _spec_of(experiment, tokenizer)
  mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
  placed, is_frozen = spec.unifluid.place(mesh), experiment.init.is_frozen
  state = CheckpointReader(workdir / 'checkpoints').restore(
    _EMAState(
      step=abstract_state(mesh, jax.ShapeDtypeStruct((), 'int32'), {}),
      frozen={name: leaf for name, leaf in placed.items() if is_frozen(name)},
      vae=spec.vae.place(mesh),
      ema={name: leaf for name, leaf in placed.items() if not is_frozen(name)},
    ),
    experiment.identity(tokenizer.fingerprint),
  )
  return EMAWeights({**state.ema, **state.frozen}, state.vae, int(state.step))


def abstract_ema_weights(
  experiment: Experiment, tokenizer: Tokenizer, workdir: AnyPath
) -> EMAWeights:
  """Shapes and dtypes of what `restore_ema_weights` reads, without reading it.

  Args:
    experiment: The run's config.
    tokenizer: The run's vocabulary.
    workdir: The run's folder.

  Raises:
    UserError: No checkpoint is complete, or it was made with another config.
  """
  reader = CheckpointReader(workdir / 'checkpoints')
  step = reader.newest(experiment.identity(tokenizer.fingerprint))
  spec = _spec_of(experiment, tokenizer)
  return EMAWeights(
    spec.unifluid.abstract_parameters, spec.vae.abstract_parameters, step
  )


def _read_export(
  spec: ModelSpec, folder: AnyPath, mesh: jax.sharding.Mesh, step: int
) -> EMAWeights:
  """Reads the weights of an export."""
  vae = {f'{VAE}/{name}': leaf for name, leaf in spec.vae.place(mesh).items()}
  shardings = shardings_of(spec.unifluid.place(mesh) | vae)
  return EMAWeights(*load_exported(str(folder), shardings), step)


def _spec_of(experiment: Experiment, tokenizer: Tokenizer) -> ModelSpec:
  """The spec of a model that was trained.

  Raises:
    UserError: The vocabulary does not fit the config.
  """
  experiment.check_vocab_size(tokenizer.vocab_size)
  return make_model_spec(experiment, tokenizer.boi_id)
