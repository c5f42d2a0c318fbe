"""Trains the UniFluid of an experiment."""

import contextlib
from collections.abc import Callable, Generator

import jax

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec, make_model_spec
from unifluid_jax.data.pipeline import make_batches
from unifluid_jax.sharding import mesh as mesh_lib
from unifluid_jax.sharding.process_rows import local_rows, put_rows
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.config_drift import check_same
from unifluid_jax.training.exposure import log_exposure
from unifluid_jax.training.flops import step_flops
from unifluid_jax.training.heldout_losses import heldout_losses
from unifluid_jax.training.loop import LoopFunctions, LoopSettings, fit
from unifluid_jax.training.metrics import StepWork
from unifluid_jax.training.parameter_table import log_parameters
from unifluid_jax.training.preflight import PreparedRun, check_start
from unifluid_jax.training.prompt_probe import prompt_probe
from unifluid_jax.training.state import (
  abstract_train_state,
  initial_train_state,
  jit_train_step,
  make_context,
)
from unifluid_jax.training.step import (
  StepContext,
  TrainState,
  make_balance_step,
)
from unifluid_jax.training.vae_state import load_vae
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights.initial_parameters import load_start
from unifluid_jax.workdir.run_config import write_config
from unifluid_jax.workdir.vocabulary_file import share_tokenizer


def train_unifluid(
  experiment: Experiment,
  workdir: AnyPath,
  start: PreparedRun | None = None,
  account: Goodput | None = None,
) -> TrainState:
  """Trains UniFluid on the VAE in `<workdir>/vae`.

  Args:
    experiment: The config.
    workdir: Folder of the run; an interrupted run resumes.
    start: What `check_start` found for this config and folder; None to make
      its checks now.
    account: Account of the process's time; None for a new one.

  Returns:
    The last state.

  Raises:
    UserError: Something is wrong; unless training has begun, the folder stays
      as it was.
  """
  if start is None:
    start = check_start(experiment, workdir, trains_vae=False)
  experiment, tokenizer = start.experiment, start.tokenizer
  config = experiment.training
  identity = experiment.identity(tokenizer.fingerprint)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  checkpoints.agree()
  checkpoints.put_damaged_aside()
  checkpoints.check_identity(identity)
  check_same(experiment, workdir, checkpoints.latest_step)
  mesh = mesh_lib.make_mesh(experiment.mesh)
  spec = make_model_spec(experiment, tokenizer.boi_id)
  context = make_context(experiment, spec)
  measures = [
    measure(experiment, start.tasks, tokenizer, context, mesh)
    for measure in (heldout_losses, prompt_probe)
  ]
  target = abstract_train_state(experiment, spec, context, mesh)
  log_parameters('unifluid', {**target.params, **target.frozen})
  log_exposure(experiment, start.tasks)

  def initialize() -> TrainState:
    return _first_state(experiment, workdir, spec, context, target)

  first = initialize() if checkpoints.latest_step is None else None
  # After all that may refuse to start: till now the files are as they were.
  share_tokenizer(tokenizer, workdir)
  write_config(experiment, workdir)
  run = LoopSettings(
    name='unifluid',
    workdir=workdir,
    steps=config.steps,
    log_every=config.log_every,
    checkpoint=config.checkpoint,
    identity=identity,
    work=StepWork(
      tokens=experiment.data.batch_rows * experiment.data.row_capacity.length,
      flops=step_flops(experiment),
    ),
    account=account or Goodput(),
    profile=config.profile,
  )
  return fit(
    run,
    LoopFunctions(
      initialize=lambda: first or initialize(),
      abstract_state=target,
      step=jit_train_step(context, mesh, target),
      batches=make_training_batches(start, mesh),
      extra=_balance_step(context, mesh, config.balance_every),
      measures=[measure for measure in measures if measure is not None],
    ),
  )


def _first_state(
  experiment: Experiment,
  workdir: AnyPath,
  spec: ModelSpec,
  context: StepContext,
  target: TrainState,
) -> TrainState:
  """The state of step 0."""
  initialize = jax.jit(
    lambda vae, given: initial_train_state(
      experiment, spec, context, vae, given
    ),
    out_shardings=mesh_lib.shardings_of(target),
    donate_argnums=1,
  )
  vae = load_vae(experiment, workdir / 'vae')
  return initialize(vae, load_start(experiment, spec.unifluid, vae))


def make_training_batches(
  start: PreparedRun, mesh: jax.sharding.Mesh
) -> Callable[[int], Generator[Batch]]:
  """First step -> the batches from there on, on the mesh."""
  experiment, data = start.experiment, start.experiment.data

  def batches(first: int) -> Generator[Batch]:
    rows = make_batches(
      experiment.pipeline(),
      experiment.layout(),
      start.tasks,
      start.tokenizer,
      first,
      local_rows(mesh, data.batch_rows),
    )
    with contextlib.closing(rows):
      for batch, _ in rows:
        yield put_rows(mesh, batch, data.batch_rows)

  return batches


def _balance_step(context: StepContext, mesh: jax.sharding.Mesh, every: int):
  """The measurement of the loss balance, and its interval; None for none."""
  if not every:
    return None
  step = mesh_lib.on_mesh(mesh, make_balance_step(context))
  return every, jax.jit(step, donate_argnums=0)
