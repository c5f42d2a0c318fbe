"""The training state of UniFluid at step 0, and what the step needs besides."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from unifluid_jax.convert.start import check_patterns
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.errors import Collector, UserError, check_matches
from unifluid_jax.experiment import Experiment
from unifluid_jax.models import parameters
from unifluid_jax.models.unifluid import UniFluid, UniFluidConfig
from unifluid_jax.runs.vae_state import abstract_vae, vae_axes, vae_shapes
from unifluid_jax.sections import storage_dtype
from unifluid_jax.training.balance import initial_state, make_balance
from unifluid_jax.training.optimizer import is_matrix, make_optimizer
from unifluid_jax.training.sharding import (
  on_mesh,
  shardings_of,
  state_targets,
)
from unifluid_jax.training.step import (
  SHARED,
  Parameters,
  StepContext,
  TrainState,
  make_train_step,
)


def make_unifluid(experiment: Experiment, tokenizer: Tokenizer) -> UniFluid:
  """A UniFluid with fresh parameters."""
  return _make(*_unifluid_of(experiment, tokenizer), experiment.seed)


def abstract_unifluid(experiment: Experiment, tokenizer: Tokenizer) -> UniFluid:
  """A UniFluid with shapes for parameters; the same one each time."""
  return _abstract(*_unifluid_of(experiment, tokenizer))


def _unifluid_of(
  experiment: Experiment, tokenizer: Tokenizer
) -> tuple[UniFluidConfig, int]:
  """Its config, and the channels that the head writes."""
  objective = make_objective(experiment.model.objective)
  channels = objective.output_channels(experiment.token_dim)
  return experiment.unifluid(tokenizer), channels


def _make(config: UniFluidConfig, channels: int, seed: int) -> UniFluid:
  return UniFluid(config, channels, rngs=nnx.Rngs(seed))


@functools.cache
def _abstract(config: UniFluidConfig, channels: int) -> UniFluid:
  return nnx.eval_shape(lambda: _make(config, channels, seed=0))


def make_context(experiment: Experiment, tokenizer: Tokenizer) -> StepContext:
  """What the training step needs besides arrays."""
  config, optimizer = experiment.training, experiment.optimizer
  model = abstract_unifluid(experiment, tokenizer)
  axes = {
    name: axes
    for name, axes in parameters.logical_axes(model).items()
    if not experiment.init.is_frozen(name)
  }
  return StepContext(
    graphdef=nnx.graphdef(model),
    vae_graphdef=nnx.graphdef(abstract_vae(experiment)),
    objective=make_objective(experiment.model.objective),
    optimizer=make_optimizer(optimizer, config.steps, axes),
    balance=make_balance(config.balance),
    text_weight=config.text_weight,
    repeats=config.repeats,
    image_tokens=experiment.grid**2,
    token_dim=experiment.token_dim,
    patch=experiment.model.patch,
    anneal=config.anneal,
    accumulate=config.accumulate,
    ema=optimizer.ema,
    seed=experiment.seed,
  )


def check_trained(experiment: Experiment, tokenizer: Tokenizer) -> None:
  """Refuses what the config says of parameters that are not there or trained.

  Raises:
    UserError: A factor of the learning rate or a pattern of `init` is for no
      parameter, or the loss balance measures gradients of frozen ones.
  """
  names = parameters.logical_axes(abstract_unifluid(experiment, tokenizer))
  problems = Collector()
  for pattern in experiment.optimizer.rate_factors:
    with problems.catch():
      check_matches(f'optimizer.rate_factors has {pattern!r}', pattern, names)
  with problems.catch():
    check_patterns(experiment.init, names)
  shared = [name for name in names if name.startswith(SHARED)]
  measures = experiment.training.balance == 'gradnorm'
  if measures and all(map(experiment.init.is_frozen, shared)):
    told = UserError(
      "training.balance 'gradnorm' measures the gradients of what both tasks "
      f'share, {SHARED}, and init.frozen leaves it without; use another'
    )
    problems.add(told)
  problems.check()


def initial_train_state(
  experiment: Experiment,
  tokenizer: Tokenizer,
  context: StepContext,
  vae: Parameters,
  start: Parameters,
) -> TrainState:
  """The state of step 0; to be jitted.

  Args:
    experiment: The config.
    tokenizer: The vocabulary.
    context: Holder of the optimizer.
    vae: Parameters of the VAE.
    start: Parameters of the model that are not to be fresh ones.
  """
  model = make_unifluid(experiment, tokenizer)
  _, flat = parameters.flatten(model)
  flat |= start
  frozen = {
    name: flat[name].astype(dtype)
    for name, dtype in frozen_dtypes(experiment, model).items()
  }
  params = {name: v for name, v in flat.items() if name not in frozen}
  return TrainState(
    step=jnp.int32(0),
    params=params,
    frozen=frozen,
    vae=vae,
    opt_state=context.optimizer.init(params),
    ema=params,
    balance=initial_state(),
    bad_step=jnp.int32(-1),
  )


def train_state_targets(
  experiment: Experiment,
  tokenizer: Tokenizer,
  context: StepContext,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shape, dtype and sharding of each array of the state."""
  vae = vae_shapes(experiment)
  shapes = jax.eval_shape(
    lambda vae: initial_train_state(experiment, tokenizer, context, vae, {}),
    vae,
  )
  model = abstract_unifluid(experiment, tokenizer)
  target = state_targets(mesh, shapes, parameters.logical_axes(model))
  return target._replace(vae=state_targets(mesh, vae, vae_axes(experiment)))


_TPU_OPTIONS = {
  'xla_tpu_enable_windowed_einsum_for_all_gather': False,
  'xla_tpu_enable_windowed_einsum_for_reduce_scatter': False,
}
"""A windowed einsum multiplies by each device's share of a weight as it
arrives, and for large batches reads and writes its sum of activations each
time: nine times the HBM traffic of gathering the weight (0.7B on v5p-128)."""


def jit_train_step(
  context: StepContext, mesh: jax.sharding.Mesh, target: TrainState
) -> jax.stages.Wrapped:
  """The training step on a mesh: (state, batch) -> (state, metrics).

  Args:
    context: What the step needs besides arrays.
    mesh: The mesh.
    target: Where the arrays of the state lie, before and after.
  """
  is_tpu = mesh.devices.flat[0].platform == 'tpu'
  return jax.jit(
    on_mesh(mesh, make_train_step(context)),
    out_shardings=(shardings_of(target), None),
    donate_argnums=0,
    compiler_options=_TPU_OPTIONS if is_tpu else None,
  )


def frozen_dtypes(experiment: Experiment, model: UniFluid) -> dict[str, str]:
  """Dtype of each parameter that is not trained; vectors are float32."""
  init = experiment.init
  return {
    name: (is_matrix(name, axes) and storage_dtype(init.dtype, name))
    or 'float32'
    for name, axes in parameters.logical_axes(model).items()
    if init.is_frozen(name)
  }
