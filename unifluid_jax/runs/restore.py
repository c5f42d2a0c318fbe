"""Trained parameters, from the checkpoints of a run."""

from typing import NamedTuple

import jax
from flax import nnx

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.state import make_context, train_state_targets
from unifluid_jax.training.checkpoint import ABSENT, Checkpoints
from unifluid_jax.training.sharding import MeshConfig, make_mesh
from unifluid_jax.training.step import Parameters, StepContext, TrainState


class Averaged(NamedTuple):
  """What is used of a checkpoint.

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


def _target(
  experiment: Experiment,
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: jax.sharding.Mesh | None,
) -> TrainState:
  mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
  return train_state_targets(experiment, tokenizer, context, mesh)
