"""Trains the UniFluid of an experiment: builds the state, the step, the run."""

import json
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging
from clu import parameter_overview
from flax import nnx

from unifluid_jax.batch import Batch
from unifluid_jax.config import build, to_dict
from unifluid_jax.convert.start import check_complete, load_model
from unifluid_jax.data.pipeline import make_batches
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import TOKENIZER_FILE, Experiment
from unifluid_jax.models import parameters
from unifluid_jax.models.unifluid import UniFluid
from unifluid_jax.paths import AnyPath, to_path, write_whole
from unifluid_jax.runs.flops import step_flops
from unifluid_jax.runs.vae import load_vae, make_vae, vae_shapes
from unifluid_jax.sections import storage_dtype
from unifluid_jax.training import sharding as sharding_lib
from unifluid_jax.training.balance import initial_state, make_balance
from unifluid_jax.training.checkpoint import Checkpoints, abstract
from unifluid_jax.training.loop import Run, fit
from unifluid_jax.training.metrics import Work
from unifluid_jax.training.optimizer import is_matrix, make_optimizer
from unifluid_jax.training.step import (
  Parameters,
  StepContext,
  TrainState,
  make_balance_step,
  make_train_step,
)

CONFIG_FILE = 'config.json'
"""The whole config of a run, in the run's folder."""


def make_unifluid(experiment: Experiment, tokenizer: Tokenizer) -> UniFluid:
  """A UniFluid with fresh parameters."""
  objective = make_objective(experiment.model.objective)
  return UniFluid(
    experiment.unifluid(tokenizer),
    objective.output_channels(experiment.token_dim),
    rngs=nnx.Rngs(experiment.seed),
  )


def make_context(experiment: Experiment, tokenizer: Tokenizer) -> StepContext:
  """What the training step needs besides arrays."""
  config, optimizer = experiment.training, experiment.optimizer
  model = nnx.eval_shape(lambda: make_unifluid(experiment, tokenizer))
  vae = nnx.eval_shape(lambda: make_vae(experiment))
  axes = {
    name: axes
    for name, axes in parameters.logical_axes(model).items()
    if not experiment.init.is_frozen(name)
  }
  return StepContext(
    graphdef=nnx.graphdef(model),
    vae_graphdef=nnx.graphdef(vae),
    objective=make_objective(experiment.model.objective),
    optimizer=make_optimizer(optimizer, config.steps, axes),
    balance=make_balance(config.balance),
    text_weight=config.text_weight,
    repeats=config.repeats,
    image_tokens=experiment.grid**2,
    token_dim=experiment.token_dim,
    patch=experiment.model.patch,
    anneal=None if config.anneal is None else tuple(config.anneal),  # type: ignore[arg-type]
    accumulate=config.accumulate,
    ema=optimizer.ema,
    seed=experiment.seed,
  )


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
    for name, dtype in _frozen_dtypes(experiment, model).items()
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


def train_unifluid(experiment: Experiment, workdir: AnyPath) -> TrainState:
  """Trains UniFluid on the VAE in `<workdir>/vae`.

  Args:
    experiment: The config.
    workdir: Folder of the run; a run that was stopped goes on.

  Returns:
    The last state.
  """
  config, data = experiment.training, experiment.data
  tokenizer = experiment.make_tokenizer(workdir)
  identity = experiment.identity(tokenizer)
  # Before the config is overwritten that belongs to the checkpoints.
  Checkpoints(workdir / 'checkpoints').check_identity(identity)
  _write_config(experiment, workdir)
  context = make_context(experiment, tokenizer)
  mesh = sharding_lib.make_mesh(experiment.mesh)
  sharding_lib.check_rows(mesh, data.rows, config.accumulate)
  tasks = experiment.make_tasks(data.sources)

  def first_state(vae, start):
    return initial_train_state(experiment, tokenizer, context, vae, start)

  shapes = jax.eval_shape(first_state, vae_shapes(experiment), {})
  model = nnx.eval_shape(lambda: make_unifluid(experiment, tokenizer))
  shardings = sharding_lib.state_shardings(
    mesh, shapes, parameters.logical_axes(model)
  )
  logging.info(
    'unifluid:\n%s',
    parameter_overview.get_parameter_overview(
      {**shapes.params, **shapes.frozen}, include_stats=False
    ),
  )

  def batches(start: int) -> Iterator[Batch]:
    rows = make_batches(
      experiment.pipeline(),
      experiment.layout(),
      tasks,
      tokenizer,
      start,
      jax.process_index(),
      jax.process_count(),
    )
    return (sharding_lib.put_batch(mesh, batch) for batch, _ in rows)

  run = Run(
    name='unifluid',
    workdir=workdir,
    steps=config.steps,
    log_every=config.log_every,
    checkpoint=config.checkpoint,
    identity=identity,
    work=Work(
      images=data.examples,
      tokens=data.rows * data.row.length,
      flops=step_flops(experiment),
    ),
  )
  balance_step = None
  if config.balance_every:
    measure = jax.jit(make_balance_step(context), donate_argnums=0)
    balance_step = (config.balance_every, measure)
  make_first = jax.jit(first_state, out_shardings=shardings, donate_argnums=1)
  return fit(
    run,
    lambda: make_first(
      load_vae(experiment, workdir / 'vae'), load_start(experiment, tokenizer)
    ),
    abstract(shapes, shardings),
    jax.jit(make_train_step(context), donate_argnums=0),
    batches,
    balance_step,
  )


def read_experiment(workdir: AnyPath) -> Experiment:
  """The config of a run, from its folder.

  Raises:
    UserError: If it is no folder of a run.
  """
  file = workdir / CONFIG_FILE
  if not file.exists():
    raise UserError(
      f'{file} does not exist; {workdir} must be the --workdir of a training '
      'run'
    )
  return build(Experiment, json.loads(file.read_text(encoding='utf-8')))


def load_start(experiment: Experiment, tokenizer: Tokenizer) -> Parameters:
  """The parameters that `init` gives a source for, where they are to lie.

  Raises:
    UserError: A source does not fit, or a parameter has none and may not be
      fresh.
  """
  init = experiment.init
  targets = _targets(experiment, tokenizer)
  start: Parameters = {}
  if init.workdir:
    start |= _load_from_run(experiment, targets)
  start |= load_model(init, experiment.model, targets)
  check_complete(init, start, targets)
  return start


def _targets(
  experiment: Experiment, tokenizer: Tokenizer
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shape, dtype and sharding of each parameter of the model."""
  mesh = sharding_lib.make_mesh(experiment.mesh)
  model = nnx.eval_shape(lambda: make_unifluid(experiment, tokenizer))
  axes = parameters.logical_axes(model)
  dtypes = _frozen_dtypes(experiment, model)
  return {
    name: jax.ShapeDtypeStruct(
      leaf.shape,
      dtypes.get(name, leaf.dtype),
      sharding=sharding_lib.parameter_sharding(mesh, axes[name], leaf.shape),
    )
    for name, leaf in parameters.flatten(model)[1].items()
  }


def _frozen_dtypes(experiment: Experiment, model: UniFluid) -> dict[str, str]:
  """Dtype of each parameter that is not trained; vectors are float32."""
  init = experiment.init
  return {
    name: (is_matrix(axes) and storage_dtype(init.dtype, name)) or 'float32'
    for name, axes in parameters.logical_axes(model).items()
    if init.is_frozen(name)
  }


def _load_from_run(
  experiment: Experiment, targets: dict[str, jax.ShapeDtypeStruct]
) -> Parameters:
  """The averaged parameters of another run that `init` names.

  Raises:
    UserError: If there is no such run, or a parameter's shape is another one.
  """
  workdir = to_path(experiment.init.workdir)
  _, found, _ = restore_averaged(
    read_experiment(workdir), Tokenizer.load(workdir / TOKENIZER_FILE), workdir
  )
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
      f'init.workdir: {workdir} cannot give '
      f'{", ".join(wrong[:5]) or "anything"}; use a run of the same model, or '
      'other init.parameters'
    )
  return {
    name: jax.device_put(found[name].astype(target.dtype), target.sharding)
    for name, target in wanted.items()
  }


def _write_config(experiment: Experiment, workdir: AnyPath) -> None:
  if jax.process_index() == 0:
    text = json.dumps(to_dict(experiment), indent=2)
    write_whole(workdir / CONFIG_FILE, f'{text}\n'.encode())


def restore_averaged(
  experiment: Experiment, tokenizer: Tokenizer, workdir: AnyPath
) -> tuple[nnx.GraphDef, Parameters, Parameters]:
  """Structure, averaged parameters and VAE of a run's newest checkpoint.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  context = make_context(experiment, tokenizer)
  shapes = jax.eval_shape(
    lambda vae: initial_train_state(experiment, tokenizer, context, vae, {}),
    vae_shapes(experiment),
  )
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shardings = jax.tree.map(lambda _: device, shapes)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  state = checkpoints.restore(
    abstract(shapes, shardings), experiment.identity(tokenizer)
  )
  checkpoints.close()
  return context.graphdef, {**state.ema, **state.frozen}, state.vae
