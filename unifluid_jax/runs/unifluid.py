"""Trains the UniFluid of an experiment."""

import contextlib
from collections.abc import Callable, Generator, Mapping

import jax

from unifluid_jax.batch import Batch
from unifluid_jax.data.lengths import check_longest, check_texts
from unifluid_jax.data.pipeline import check_mixture, make_batches
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.flops import step_flops
from unifluid_jax.runs.folder import shared_tokenizer, write_config
from unifluid_jax.runs.heldout import heldout_losses
from unifluid_jax.runs.overview import log_parameters
from unifluid_jax.runs.recipe import check_same
from unifluid_jax.runs.start import load_start
from unifluid_jax.runs.state import (
  check_trained,
  initial_train_state,
  jit_train_step,
  make_context,
  train_state_targets,
)
from unifluid_jax.runs.vae_state import load_vae
from unifluid_jax.training import sharding as sharding_lib
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.loop import Program, Run, fit
from unifluid_jax.training.metrics import Work
from unifluid_jax.training.rows import check_rows, local_rows, put_rows
from unifluid_jax.training.step import (
  StepContext,
  TrainState,
  make_balance_step,
)


def train_unifluid(experiment: Experiment, workdir: AnyPath) -> TrainState:
  """Trains UniFluid on the VAE in `<workdir>/vae`.

  Args:
    experiment: The config.
    workdir: Folder of the run; a run that was stopped goes on.

  Returns:
    The last state.
  """
  config = experiment.training
  tokenizer = shared_tokenizer(experiment, workdir)
  identity = experiment.identity(tokenizer)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  checkpoints.agree()
  checkpoints.check_identity(identity)
  check_same(experiment, workdir, checkpoints.latest_step)
  mesh = sharding_lib.make_mesh(experiment.mesh)
  tasks = check_unifluid(experiment, tokenizer)
  batches = make_training_batches(experiment, tokenizer, mesh, tasks)
  context = make_context(experiment, tokenizer)
  heldout = heldout_losses(experiment, tasks, tokenizer, context, mesh)
  target = train_state_targets(experiment, tokenizer, context, mesh)
  log_parameters('unifluid', {**target.params, **target.frozen})
  # After all that may refuse to start: the file is the finished run's till now.
  write_config(experiment, workdir)
  initialise = jax.jit(
    lambda vae, start: initial_train_state(
      experiment, tokenizer, context, vae, start
    ),
    out_shardings=sharding_lib.shardings_of(target),
    donate_argnums=1,
  )

  def first_state() -> TrainState:
    vae = load_vae(experiment, workdir / 'vae')
    return initialise(vae, load_start(experiment, tokenizer, vae))

  run = Run(
    name='unifluid',
    workdir=workdir,
    steps=config.steps,
    log_every=config.log_every,
    checkpoint=config.checkpoint,
    identity=identity,
    work=Work(
      tokens=experiment.data.rows * experiment.data.row.length,
      flops=step_flops(experiment),
    ),
    profile=config.profile,
  )
  return fit(
    run,
    Program(
      initialise=first_state,
      abstract_state=target,
      step=jit_train_step(context, mesh, target),
      batches=batches,
      extra=_balance_step(context, mesh, config.balance_every),
      heldout=heldout,
    ),
  )


def check_unifluid(
  experiment: Experiment, tokenizer: Tokenizer
) -> dict[str, Task]:
  """Opens the tasks, and refuses what `train_unifluid` would not start with.

  Raises:
    UserError: Sources, their texts, batch or mesh are wrong, or what is said
      of parameters.
  """
  check_trained(experiment, tokenizer)
  data, mesh = experiment.data, sharding_lib.make_mesh(experiment.mesh)
  check_rows(mesh, 'data.rows', data.rows, experiment.training.accumulate)
  tasks = experiment.make_tasks(data.sources)
  check_mixture(experiment.pipeline(), tasks)
  layout = experiment.layout()
  for name, task in (*tasks.items(), *experiment.heldout_tasks(tasks).items()):
    if isinstance(task, FolderTask):
      check_texts(task, tokenizer, layout, data.row)
    else:
      check_longest(name, data.sources[name].task, layout, data.row)
  return tasks


def make_training_batches(
  experiment: Experiment,
  tokenizer: Tokenizer,
  mesh: jax.sharding.Mesh,
  tasks: Mapping[str, Task],
) -> Callable[[int], Generator[Batch]]:
  """First step -> the batches from there on, on the mesh.

  Args:
    experiment: The config.
    tokenizer: Encodes the texts.
    mesh: The mesh.
    tasks: What `check_unifluid` gave.
  """
  data = experiment.data

  def batches(start: int) -> Generator[Batch]:
    rows = make_batches(
      experiment.pipeline(),
      experiment.layout(),
      tasks,
      tokenizer,
      start,
      local_rows(mesh, data.rows),
    )
    with contextlib.closing(rows):
      for batch, _ in rows:
        yield put_rows(mesh, batch, data.rows)

  return batches


def _balance_step(context: StepContext, mesh: jax.sharding.Mesh, every: int):
  """The measurement of the loss balance, and its interval; None for none."""
  if not every:
    return None
  step = sharding_lib.on_mesh(mesh, make_balance_step(context))
  return every, jax.jit(step, donate_argnums=0)
