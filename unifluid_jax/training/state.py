"""The initial training state of UniFluid, and the context of its step."""

import jax
import jax.numpy as jnp

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec, NetworkSpec
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.sharding.mesh import abstract_state, on_mesh, shardings_of
from unifluid_jax.training.balance import initial_state, make_balance
from unifluid_jax.training.optimizer import make_optimizer
from unifluid_jax.training.step import (
  SHARED,
  StepContext,
  TrainState,
  make_train_step,
)
from unifluid_jax.utils.errors import Collector, UserError, check_matches
from unifluid_jax.weights.init_from_files import check_patterns


def make_context(experiment: Experiment, spec: ModelSpec) -> StepContext:
  """Creates the context of the training step."""
  config, optimizer = experiment.training, experiment.optimizer
  axes = {
    name: axes
    for name, axes in spec.unifluid.logical_axes.items()
    if not experiment.init.is_frozen(name)
  }
  return StepContext(
    graphdef=spec.unifluid.graphdef,
    vae_graphdef=spec.vae.graphdef,
    objective=make_objective(experiment.model.objective),
    optimizer=make_optimizer(optimizer, config.steps, axes),
    balance=make_balance(config.balance),
    text_weight=config.text_weight,
    diffusion_batch_mul=config.diffusion_batch_mul,
    image_tokens=experiment.grid**2,
    token_dim=experiment.token_dim,
    patch=experiment.model.patch,
    raster_fade=config.raster_fade,
    grad_accum_steps=config.grad_accum_steps,
    ema=optimizer.ema,
    seed=experiment.seed,
  )


def check_trained(experiment: Experiment, spec: NetworkSpec) -> None:
  """Rejects settings for parameters that do not exist or are not trained.

  Args:
    experiment: The config.
    spec: Spec of UniFluid.

  Raises:
    UserError: A learning-rate multiplier or a pattern of `init` matches no
      parameter, or the loss balance measures gradients of frozen parameters.
  """
  names = spec.logical_axes
  problems = Collector()
  for pattern in experiment.optimizer.lr_multipliers:
    with problems.catch():
      check_matches(f'optimizer.lr_multipliers has {pattern!r}', pattern, names)
  with problems.catch():
    check_patterns(experiment.init, names)
  shared = [name for name in names if name.startswith(SHARED)]
  measures = experiment.training.balance == 'gradnorm'
  if measures and all(map(experiment.init.is_frozen, shared)):
    problems.add(
      UserError(
        f"training.balance 'gradnorm' measures gradients of {SHARED}, which "
        'init.frozen freezes; use another policy'
      )
    )
  problems.check()


def initial_train_state(
  experiment: Experiment,
  spec: ModelSpec,
  context: StepContext,
  vae: Parameters,
  start: Parameters,
) -> TrainState:
  """Creates the state of step 0; jit this function.

  Args:
    experiment: The config.
    spec: Spec of the model.
    context: Has the optimizer.
    vae: Parameters of the VAE.
    start: Parameters that replace fresh ones, in their storage dtypes.
  """
  flat = spec.unifluid.fresh_parameters(experiment.seed) | start
  is_frozen = experiment.init.is_frozen
  params = {name: v for name, v in flat.items() if not is_frozen(name)}
  return TrainState(
    step=jnp.int32(0),
    params=params,
    frozen={name: v for name, v in flat.items() if is_frozen(name)},
    vae=vae,
    opt_state=context.optimizer.init(params),
    ema=params,
    balance=initial_state(),
    bad_step=jnp.int32(-1),
  )


def abstract_train_state(
  experiment: Experiment,
  spec: ModelSpec,
  context: StepContext,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns shape, dtype and sharding of each array of the state."""
  shapes = jax.eval_shape(
    lambda vae: initial_train_state(experiment, spec, context, vae, {}),
    spec.vae.abstract_parameters,
  )
  state = abstract_state(mesh, shapes, spec.unifluid.logical_axes)
  return state._replace(vae=spec.vae.place(mesh))


_TPU_OPTIONS = {
  'xla_tpu_enable_windowed_einsum_for_all_gather': False,
  'xla_tpu_enable_windowed_einsum_for_reduce_scatter': False,
}
"""A windowed einsum multiplies by each shard of a weight as it arrives. For
large batches it reads and writes the sum of activations each time: nine times
the HBM traffic of gathering the weight (0.7B on v5p-128)."""


def jit_train_step(
  context: StepContext, mesh: jax.sharding.Mesh, target: TrainState
) -> jax.stages.Wrapped:
  """Jits the training step on a mesh: (state, batch) -> (state, metrics).

  Args:
    context: Context of the step.
    mesh: The mesh.
    target: Abstract state; gives the shardings.
  """
  is_tpu = mesh.devices.flat[0].platform == 'tpu'
  return jax.jit(
    on_mesh(mesh, make_train_step(context)),
    out_shardings=(shardings_of(target), None),
    donate_argnums=0,
    compiler_options=_TPU_OPTIONS if is_tpu else None,
  )
