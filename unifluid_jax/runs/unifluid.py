"""Trains the UniFluid of an experiment: builds the state, the step, the run."""

import functools
import json
import pathlib
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging
from clu import parameter_overview
from flax import nnx

from unifluid_jax.batch import Batch
from unifluid_jax.config import build, to_dict
from unifluid_jax.data.pipeline import make_batches
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import TOKENIZER_FILE, Experiment
from unifluid_jax.models import parameters
from unifluid_jax.models.unifluid import UniFluid
from unifluid_jax.runs.flops import step_flops
from unifluid_jax.runs.vae import load_vae, make_vae
from unifluid_jax.training import sharding as sharding_lib
from unifluid_jax.training.balance import initial_state, make_balance
from unifluid_jax.training.checkpoint import Checkpoints, abstract
from unifluid_jax.training.loop import Run, fit
from unifluid_jax.training.metrics import Work
from unifluid_jax.training.optimizer import is_frozen, make_optimizer
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
    if not is_frozen(optimizer, name)
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
  _, flat = parameters.flatten(make_unifluid(experiment, tokenizer))
  flat |= start
  frozen = {name for name in flat if is_frozen(experiment.optimizer, name)}
  params = {name: v for name, v in flat.items() if name not in frozen}
  return TrainState(
    step=jnp.int32(0),
    params=params,
    frozen={name: flat[name] for name in frozen},
    vae=vae,
    opt_state=context.optimizer.init(params),
    ema=params,
    balance=initial_state(),
    bad_step=jnp.int32(-1),
  )


def train_unifluid(experiment: Experiment, workdir: pathlib.Path) -> TrainState:
  """Trains UniFluid on the VAE in `<workdir>/vae`.

  Args:
    experiment: The config.
    workdir: Folder of the run; a run that was stopped goes on.

  Returns:
    The last state.
  """
  config, data = experiment.training, experiment.data
  tokenizer = experiment.make_tokenizer(workdir)
  _write_config(experiment, workdir)
  context = make_context(experiment, tokenizer)
  mesh = sharding_lib.make_mesh(experiment.mesh)
  sharding_lib.check_rows(mesh, data.rows, config.accumulate)
  tasks = experiment.make_tasks(data.sources)
  vae = load_vae(experiment, workdir / 'vae')
  start = load_start(experiment, tokenizer)

  def first_state(vae, start):
    return initial_train_state(experiment, tokenizer, context, vae, start)

  shapes = jax.eval_shape(first_state, vae, start)
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
    identity=experiment.identity(tokenizer),
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
  return fit(
    run,
    functools.partial(
      jax.jit(first_state, out_shardings=shardings), vae, start
    ),
    shardings,
    jax.jit(make_train_step(context), donate_argnums=0),
    batches,
    balance_step,
  )


def read_experiment(workdir: pathlib.Path) -> Experiment:
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
  """The averaged parameters of another run that `init` names.

  Raises:
    UserError: If there is no such run, or a parameter's shape is another one.
  """
  if not experiment.init.workdir:
    return {}
  workdir = pathlib.Path(experiment.init.workdir)
  _, found, _ = restore_averaged(
    read_experiment(workdir), Tokenizer.load(workdir / TOKENIZER_FILE), workdir
  )
  model = nnx.eval_shape(lambda: make_unifluid(experiment, tokenizer))
  wanted = {
    name: shape
    for name, shape in parameters.flatten(model)[1].items()
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
  return {name: found[name] for name in wanted}


def _write_config(experiment: Experiment, workdir: pathlib.Path) -> None:
  if jax.process_index() == 0:
    text = json.dumps(to_dict(experiment), indent=2)
    (workdir / CONFIG_FILE).write_text(text + '\n', encoding='utf-8')


def restore_averaged(
  experiment: Experiment, tokenizer: Tokenizer, workdir: pathlib.Path
) -> tuple[nnx.GraphDef, Parameters, Parameters]:
  """Structure, averaged parameters and VAE of a run's newest checkpoint.

  Raises:
    UserError: If there is no complete checkpoint, or it is of another config.
  """
  context = make_context(experiment, tokenizer)
  vae_shapes = jax.eval_shape(
    lambda: parameters.flatten(make_vae(experiment))[1]
  )
  shapes = jax.eval_shape(
    lambda vae: initial_train_state(experiment, tokenizer, context, vae, {}),
    vae_shapes,
  )
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shardings = jax.tree.map(lambda _: device, shapes)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  state = checkpoints.restore(
    abstract(shapes, shardings), experiment.identity(tokenizer)
  )
  checkpoints.close()
  return context.graphdef, {**state.ema, **state.frozen}, state.vae
