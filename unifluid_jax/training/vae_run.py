"""Trains the VAE of an experiment."""

import contextlib
from collections.abc import Generator, Iterator, Mapping

import jax
import numpy as np
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_vae_spec
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.pipeline import check_weights, make_image_batches
from unifluid_jax.data.task import Task
from unifluid_jax.models import parameters
from unifluid_jax.models.latents import to_signed_unit
from unifluid_jax.models.linear_vae import linear_start, patch_moments
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.sharding import mesh as mesh_lib
from unifluid_jax.sharding.process_rows import check_rows, local_rows, put_rows
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.config_drift import check_same_vae
from unifluid_jax.training.loop import LoopFunctions, LoopSettings, fit
from unifluid_jax.training.metrics import StepWork
from unifluid_jax.training.parameter_table import log_parameters
from unifluid_jax.training.vae_state import (
  FINAL,
  initial_vae_state,
  make_vae_optimizer,
)
from unifluid_jax.training.vae_step import VAEState, make_vae_step
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.workdir.run_config import write_config


def train_vae(
  experiment: Experiment,
  workdir: AnyPath,
  tasks: Mapping[str, Task] | None = None,
  account: Goodput | None = None,
) -> None:
  """Trains the VAE and writes it to `<workdir>/final`.

  A VAE of this config's shape that has been trained for as many steps, or more,
  is kept. A damaged one is rebuilt from the run's last checkpoint.

  Args:
    experiment: The config.
    workdir: Folder of the VAE's run, inside UniFluid's; an interrupted run
      resumes.
    tasks: The tasks of `vae_training.sources`; None to open them now.
    account: Account of the process's time; None for a new one.

  Raises:
    UserError: There is one that was trained otherwise, or one of fewer steps,
      and UniFluid was trained on it; or all checkpoints are damaged; or
      something else is wrong. Unless training has begun, the folder stays as
      it was.
  """
  if experiment.init.vae:
    logging.info('vae: nothing to train, it is %s', experiment.init.vae)
    return
  steps = experiment.vae_training.steps
  final = Checkpoints(workdir / FINAL)
  final.agree()
  checkpoints = Checkpoints(workdir / 'checkpoints')
  checkpoints.agree()
  # A damaged finished VAE is rebuilt from its last checkpoint.
  final.put_damaged_aside(thoroughly=True, may_lose_all=bool(checkpoints.steps))
  final.check_identity(experiment.vae_identity())
  is_done = final.latest_step is not None and final.latest_step >= steps
  check_same_vae(experiment, workdir, is_done)
  if is_done:
    logging.info('vae: trained already, %s', workdir / FINAL)
    return
  unifluid = workdir.parent / 'checkpoints'
  if final.latest_step is not None and Checkpoints(unifluid).steps:
    raise UserError(
      f'vae_training.steps is {steps}, but {unifluid} is of a UniFluid that '
      f'was trained on the VAE of {final.latest_step} steps; use another '
      f'--workdir, or move {unifluid} away'
    )
  mesh = mesh_lib.make_mesh(experiment.mesh)
  batches = _batches(experiment, mesh, tasks)
  checkpoints.put_damaged_aside()
  checkpoints.check_identity(experiment.vae_identity())
  is_new = checkpoints.latest_step is None
  account = account or Goodput()
  state = _fit(experiment, workdir, mesh, batches, is_new, account)
  weights = {**state.ema, **state.statistics}
  count = experiment.vae_training.statistics_batches
  with contextlib.closing(batches(steps)) as others:
    flat = _calibrate(experiment, mesh, weights, others, count)
  with final:
    final.save(steps, flat, experiment.vae_identity(), 0.0)


def _batches(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  tasks: Mapping[str, Task] | None,
):
  """First step -> the batches from there on, on the mesh."""
  config = experiment.vae_training
  check_rows(mesh, 'vae_training.batch', config.batch)
  tasks = tasks or make_tasks(experiment, config.sources)
  weights = {name: s.weight for name, s in config.sources.items()}
  check_weights(weights, tasks)

  def batches(start: int) -> Generator[jax.Array]:
    images = make_image_batches(
      experiment.seed,
      weights,
      tasks,
      config.batch,
      start,
      local_rows(mesh, config.batch),
      experiment.data.num_workers,
    )
    with contextlib.closing(images):
      for part in images:
        yield put_rows(mesh, part, config.batch)

  return batches


def _fit(experiment, workdir, mesh, batches, is_new, account) -> VAEState:
  """Trains to the last step."""
  config = experiment.vae_training
  spec = make_vae_spec(experiment)
  optimizer = make_vae_optimizer(experiment)

  def first_state(start):
    return initial_vae_state(experiment, optimizer, start)

  target = mesh_lib.abstract_state(
    mesh, jax.eval_shape(first_state, {}), spec.logical_axes
  )
  initialize = jax.jit(first_state, out_shardings=mesh_lib.shardings_of(target))
  log_parameters('vae', {**target.params, **target.statistics})
  step = make_vae_step(
    spec.graphdef,
    optimizer,
    config.loss,
    config.optimizer.ema,
    experiment.seed,
  )
  run = LoopSettings(
    name='vae',
    workdir=workdir,
    steps=config.steps,
    log_every=config.log_every,
    checkpoint=config.checkpoint,
    identity=experiment.vae_identity(),
    work=StepWork(tokens=0, flops=0),
    account=account,
  )

  def first_vae() -> VAEState:
    with contextlib.closing(batches(0)) as images:
      return initialize(_linear_start(experiment, mesh, images))

  first = first_vae() if is_new else None
  # After all that may refuse to start: till now the file is as it was.
  write_config(experiment, workdir)
  return fit(
    run,
    LoopFunctions(
      initialize=lambda: first or first_vae(),
      abstract_state=target,
      step=jax.jit(step, donate_argnums=0),
      batches=batches,
    ),
  )


def _linear_start(
  experiment: Experiment, mesh: jax.sharding.Mesh, batches: Iterator[jax.Array]
) -> dict[str, np.ndarray]:
  """What the linear shortcuts start from, if they are all of the VAE then."""
  vae, training = experiment.vae, experiment.vae_training
  if not vae.shortcuts or vae.quant_convs:
    return {}
  moments = jax.jit(
    lambda images: patch_moments(to_signed_unit(images), vae.stride),
    out_shardings=_everywhere(mesh),
  )
  count = training.statistics_batches
  measured = (jax.device_get(moments(next(batches))) for _ in range(count))
  return linear_start(measured, vae.latent_channels, training.loss.kl_weight)


def _everywhere(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Where each process has all of an array."""
  return NamedSharding(mesh, PartitionSpec())


def _calibrate(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  flat: Parameters,
  batches: Iterator[jax.Array],
  count: int,
) -> Parameters:
  """The parameters with the latents' statistics, over `count` batches."""
  graphdef = make_vae_spec(experiment).graphdef

  def encode(flat, images):
    return parameters.unflatten(graphdef, flat).encode(to_signed_unit(images))

  encode = jax.jit(encode, out_shardings=_everywhere(mesh))
  vae = parameters.unflatten(graphdef, flat)
  vae.calibrate(encode(flat, next(batches)) for _ in range(count))
  _, measured = parameters.flatten(vae)
  return {
    name: jax.device_put(value, flat[name].sharding)
    for name, value in measured.items()
  }
