"""Trains the VAE of an experiment, and loads it."""

import jax
import jax.numpy as jnp
from absl import logging
from clu import parameter_overview
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from unifluid_jax.convert import start
from unifluid_jax.data.pipeline import make_image_batches
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment
from unifluid_jax.models import parameters
from unifluid_jax.models.latents import to_unit
from unifluid_jax.models.vae import VAE, Moments
from unifluid_jax.paths import AnyPath
from unifluid_jax.training import sharding as sharding_lib
from unifluid_jax.training.checkpoint import Checkpoints, abstract
from unifluid_jax.training.loop import Run, fit
from unifluid_jax.training.metrics import Work
from unifluid_jax.training.optimizer import make_optimizer
from unifluid_jax.training.vae_step import (
  Parameters,
  VAEState,
  make_vae_step,
)

FINAL = 'final'
"""Folder of the finished VAE: averaged parameters, measured statistics."""


def make_vae(experiment: Experiment) -> VAE:
  """A VAE with fresh parameters."""
  return VAE(experiment.vae, rngs=nnx.Rngs(experiment.seed))


def train_vae(experiment: Experiment, workdir: AnyPath) -> None:
  """Trains the VAE and writes it to `<workdir>/final`.

  Args:
    experiment: The config.
    workdir: Folder of the VAE's run; a run that was stopped goes on.
  """
  if experiment.init.vae:
    logging.info('vae: nothing to train, it is %s', experiment.init.vae)
    return
  config = experiment.vae_training
  identity = experiment.vae_identity()
  final = Checkpoints(workdir / FINAL)
  if final.latest_step == config.steps:
    logging.info('vae: trained already, %s', workdir / FINAL)
    final.close()
    return
  mesh = sharding_lib.make_mesh(experiment.mesh)
  sharding_lib.check_rows(mesh, config.batch, 1)
  rows = NamedSharding(mesh, sharding_lib.ROWS)
  everywhere = NamedSharding(mesh, PartitionSpec())
  model = nnx.eval_shape(lambda: make_vae(experiment))
  graphdef = nnx.graphdef(model)
  trained = {
    '/'.join(map(str, path))
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }
  axes = parameters.logical_axes(model)
  optimizer = make_optimizer(
    config.optimizer, config.steps, {name: axes[name] for name in trained}
  )
  tasks = experiment.make_tasks(config.sources)
  weights = {name: s.weight for name, s in config.sources.items()}

  def initialise():
    _, flat = parameters.flatten(make_vae(experiment))
    params = {name: value for name, value in flat.items() if name in trained}
    return VAEState(
      step=jnp.int32(0),
      params=params,
      statistics={k: v for k, v in flat.items() if k not in trained},
      opt_state=optimizer.init(params),
      ema=params,
      bad_step=jnp.int32(-1),
    )

  def batches(start):
    images = make_image_batches(
      experiment.seed, weights, tasks, config.batch, start
    )
    return (jax.device_put(image, rows) for image in images)

  step = make_vae_step(
    graphdef, optimizer, config.loss, config.optimizer.ema, experiment.seed
  )
  shapes = jax.eval_shape(initialise)
  shardings = jax.tree.map(lambda _: everywhere, shapes)
  run = Run(
    name='vae',
    workdir=workdir,
    steps=config.steps,
    log_every=config.log_every,
    checkpoint=config.checkpoint,
    identity=identity,
    work=Work(images=config.batch, tokens=0, flops=0),
  )
  state = fit(
    run,
    jax.jit(initialise, out_shardings=shardings),
    abstract(shapes, shardings),
    jax.jit(step, donate_argnums=0),
    batches,
  )
  averaged = {**state.ema, **state.statistics}
  logging.info(
    'vae:\n%s',
    parameter_overview.get_parameter_overview(averaged, include_stats=False),
  )
  vae = parameters.unflatten(graphdef, averaged)
  _calibrate(vae, batches(config.steps), config.statistics_batches)
  _, flat = parameters.flatten(vae)
  final.save(config.steps, flat, identity, 0.0)
  final.close()


def _calibrate(vae: VAE, batches, count: int) -> None:
  """Measures the statistics of the latents over `count` batches."""
  encode = nnx.jit(lambda vae, images: vae.encode(to_unit(images)))

  def posteriors():
    for _ in range(count):
      yield Moments(*encode(vae, next(batches)))

  vae.calibrate(posteriors())


def vae_shapes(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  """Shape and dtype of each parameter of the VAE, by name."""
  return jax.eval_shape(lambda: parameters.flatten(make_vae(experiment))[1])


def load_vae(experiment: Experiment, workdir: AnyPath) -> Parameters:
  """Parameters of the finished VAE of a run, by name, on every device.

  Args:
    experiment: The config; `init.vae` names a file to take instead.
    workdir: Folder of the VAE's run.

  Raises:
    UserError: There is none, or it is of another config.
  """
  mesh = sharding_lib.make_mesh(experiment.mesh)
  everywhere = NamedSharding(mesh, PartitionSpec())
  shapes = vae_shapes(experiment)
  shardings = jax.tree.map(lambda _: everywhere, shapes)
  targets = abstract(shapes, shardings)
  if experiment.init.vae:
    return start.load_vae(experiment.init.vae, experiment.vae, targets)
  folder = workdir / FINAL
  if not folder.exists():
    raise UserError(
      f'{folder} does not exist; train the VAE first: '
      'python -m unifluid_jax.train_vae'
    )
  checkpoints = Checkpoints(folder)
  flat = checkpoints.restore(targets, experiment.vae_identity())
  checkpoints.close()
  return flat
