"""Trained parameters, from the checkpoints of a run or from an export."""

from typing import NamedTuple

import jax
from flax import nnx

from unifluid_jax.config import build
from unifluid_jax.convert import own
from unifluid_jax.convert.layouts.layout import VAE
from unifluid_jax.convert.start import load_exported, read_exported
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.experiment import TOKENIZER_FILE, Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.folder import read_experiment
from unifluid_jax.runs.state import make_context, train_state_targets
from unifluid_jax.training.checkpoint import ABSENT, Checkpoints
from unifluid_jax.training.sharding import MeshConfig, make_mesh, shardings_of
from unifluid_jax.training.step import Parameters, StepContext, TrainState


class Averaged(NamedTuple):
  """What is used of a checkpoint, or of an export.

  Attributes:
    graphdef: Structure of UniFluid.
    params: Its averaged parameters, by name.
    vae: The VAE's parameters, by name.
    step: Steps that they were trained for.
  """

  graphdef: nnx.GraphDef
  params: Parameters
  vae: Parameters
  step: int


class Trained(NamedTuple):
  """All that a trained model is.

  Attributes:
    experiment: The config that it was trained with.
    tokenizer: The vocabulary.
    averaged: The parameters.
  """

  experiment: Experiment
  tokenizer: Tokenizer
  averaged: Averaged


def read_trained(workdir: AnyPath, mesh: jax.sharding.Mesh) -> Trained:
  """Reads the newest checkpoint of a run, or a whole export.

  Args:
    workdir: Folder of the run or of the export.
    mesh: Where the parameters are to lie.

  Raises:
    UserError: If it is no such folder, or is not complete, or its checkpoint is
      of another config.
  """
  # Of a file that is damaged, what else there is tells whose it was.
  is_run = (workdir / 'checkpoints').exists()
  if not is_run and own.is_own(str(workdir)):
    exported = read_exported(str(workdir))
    experiment = build(Experiment, exported.experiment)
    tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
    averaged = _read_export(experiment, tokenizer, workdir, mesh, exported.step)
  else:
    experiment = read_experiment(workdir)
    tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
    averaged = restore_averaged(experiment, tokenizer, workdir, mesh)
  return Trained(experiment, tokenizer, averaged)


def restore_averaged(
  experiment: Experiment,
  tokenizer: Tokenizer,
  workdir: AnyPath,
  mesh: jax.sharding.Mesh | None = None,
) -> Averaged:
  """Reads the newest checkpoint of a run.

  The optimizer and what the average is of are not read.

  Args:
    experiment: The run's config.
    tokenizer: The run's vocabulary.
    workdir: The run's folder.
    mesh: Where they are to lie; None for the first device of this process.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  context = make_context(experiment, tokenizer)
  target = _target(experiment, tokenizer, context, mesh)
  absent = jax.tree.map(lambda _: ABSENT, target)
  state = Checkpoints(workdir / 'checkpoints').restore(
    absent._replace(
      step=target.step,
      ema=target.ema,
      frozen=target.frozen,
      vae=target.vae,
    ),
    experiment.identity(tokenizer),
  )
  return Averaged(
    context.graphdef,
    {**state.ema, **state.frozen},
    state.vae,
    int(state.step),
  )


def averaged_shapes(
  experiment: Experiment, tokenizer: Tokenizer, workdir: AnyPath
) -> Averaged:
  """Shapes and dtypes of what `restore_averaged` reads, without reading it.

  Args:
    experiment: The run's config.
    tokenizer: The run's vocabulary.
    workdir: The run's folder.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  checkpoints = Checkpoints(workdir / 'checkpoints')
  step = checkpoints.newest(experiment.identity(tokenizer))
  context = make_context(experiment, tokenizer)
  target = _target(experiment, tokenizer, context, None)
  return Averaged(
    context.graphdef, {**target.ema, **target.frozen}, target.vae, step
  )


def _read_export(
  experiment: Experiment,
  tokenizer: Tokenizer,
  folder: AnyPath,
  mesh: jax.sharding.Mesh,
  step: int | None,
) -> Averaged:
  """What is used of an export: the same as of a checkpoint."""
  context = make_context(experiment, tokenizer)
  state = train_state_targets(experiment, tokenizer, context, mesh)
  vae = {f'{VAE}/{name}': target for name, target in state.vae.items()}
  shardings = shardings_of({**state.ema, **state.frozen, **vae})
  # An export of before the step was kept was mostly of a whole training.
  step = experiment.training.steps if step is None else step
  return Averaged(
    context.graphdef, *load_exported(str(folder), shardings), step
  )


def _target(
  experiment: Experiment,
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: jax.sharding.Mesh | None,
) -> TrainState:
  mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
  return train_state_targets(experiment, tokenizer, context, mesh)
