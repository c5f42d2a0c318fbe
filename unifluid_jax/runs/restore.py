"""Trained parameters, from the checkpoints of a run."""

import jax
from flax import nnx

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.state import make_context, train_state_targets
from unifluid_jax.training.checkpoint import ABSENT, Checkpoints
from unifluid_jax.training.sharding import MeshConfig, make_mesh
from unifluid_jax.training.step import Parameters


def restore_averaged(
  experiment: Experiment,
  tokenizer: Tokenizer,
  workdir: AnyPath,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[nnx.GraphDef, Parameters, Parameters]:
  """Structure, averaged parameters and VAE of a run's newest checkpoint.

  The optimizer and what the average is of are not read.

  Args:
    experiment: The run's config.
    tokenizer: The run's vocabulary.
    workdir: The run's folder.
    mesh: Where they are to lie; None for the first device of this process.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
  context = make_context(experiment, tokenizer)
  target = train_state_targets(experiment, tokenizer, context, mesh)
  absent = jax.tree.map(lambda _: ABSENT, target)
  state = Checkpoints(workdir / 'checkpoints').restore(
    absent._replace(ema=target.ema, frozen=target.frozen, vae=target.vae),
    experiment.identity(tokenizer),
  )
  return context.graphdef, {**state.ema, **state.frozen}, state.vae
