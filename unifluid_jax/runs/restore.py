"""Trained parameters, from the checkpoints of a run."""

import jax
from flax import nnx

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.state import initial_train_state, make_context
from unifluid_jax.runs.vae_state import vae_shapes
from unifluid_jax.training.checkpoint import ABSENT, Checkpoints, abstract
from unifluid_jax.training.step import Parameters


def restore_averaged(
  experiment: Experiment, tokenizer: Tokenizer, workdir: AnyPath
) -> tuple[nnx.GraphDef, Parameters, Parameters]:
  """Structure, averaged parameters and VAE of a run's newest checkpoint.

  The optimizer and what the average is of are not read.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  context = make_context(experiment, tokenizer)
  shapes = jax.eval_shape(
    lambda vae: initial_train_state(experiment, tokenizer, context, vae, {}),
    vae_shapes(experiment),
  )
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  wanted = abstract(shapes, jax.tree.map(lambda _: device, shapes))
  absent = jax.tree.map(lambda _: ABSENT, shapes)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  state = checkpoints.restore(
    absent._replace(ema=wanted.ema, frozen=wanted.frozen, vae=wanted.vae),
    experiment.identity(tokenizer),
  )
  return context.graphdef, {**state.ema, **state.frozen}, state.vae
