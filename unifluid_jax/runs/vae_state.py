"""The training state of the VAE at step 0, and the finished VAE."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from unifluid_jax.convert import start
from unifluid_jax.errors import Collector, UserError, check_matches
from unifluid_jax.experiment import Experiment
from unifluid_jax.models import parameters
from unifluid_jax.models.parameters import Axes
from unifluid_jax.models.vae import VAE, VAEConfig
from unifluid_jax.paths import AnyPath
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.optimizer import make_optimizer
from unifluid_jax.training.sharding import make_mesh, state_targets
from unifluid_jax.training.vae_step import Parameters, VAEState

FINAL = 'final'
"""Folder of the finished VAE: averaged parameters, measured statistics."""


def make_vae(experiment: Experiment) -> VAE:
  """A VAE with fresh parameters."""
  return VAE(experiment.vae, rngs=nnx.Rngs(experiment.seed))


def abstract_vae(experiment: Experiment) -> VAE:
  """A VAE with shapes for parameters; the same one each time."""
  return _abstract(experiment.vae)


@functools.cache
def _abstract(config: VAEConfig) -> VAE:
  return nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))


def vae_shapes(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  """Shape and dtype of each parameter of the VAE, by name."""
  return parameters.flatten(abstract_vae(experiment))[1]


def vae_axes(experiment: Experiment) -> dict[str, Axes]:
  """Logical axes of each parameter of the VAE, by name."""
  return parameters.logical_axes(abstract_vae(experiment))


def make_vae_optimizer(experiment: Experiment) -> optax.GradientTransformation:
  """The update rule of the VAE's trained parameters.

  Raises:
    UserError: A factor of the learning rate is for no parameter.
  """
  config, axes = experiment.vae_training, vae_axes(experiment)
  problems = Collector()
  for pattern in config.optimizer.rate_factors:
    told = f'vae_training.optimizer.rate_factors has {pattern!r}'
    with problems.catch():
      check_matches(told, pattern, axes)
  problems.check()
  trained = {name: axes[name] for name in _trained(experiment)}
  return make_optimizer(config.optimizer, config.steps, trained)


def initial_vae_state(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  start: Parameters,
) -> VAEState:
  """The state of step 0; to be jitted.

  Args:
    experiment: The config.
    optimizer: The update rule.
    start: Parameters that are not to be fresh ones.
  """
  _, flat = parameters.flatten(make_vae(experiment))
  flat |= start
  trained = _trained(experiment)
  params = {name: value for name, value in flat.items() if name in trained}
  return VAEState(
    step=jnp.int32(0),
    params=params,
    statistics={k: v for k, v in flat.items() if k not in trained},
    opt_state=optimizer.init(params),
    ema=params,
    bad_step=jnp.int32(-1),
  )


def load_vae(experiment: Experiment, workdir: AnyPath) -> Parameters:
  """Parameters of the finished VAE of a run, by name, where they are to lie.

  Args:
    experiment: The config; `init.vae` names a file to take instead.
    workdir: Folder of the VAE's run.

  Raises:
    UserError: There is none, or it is damaged or of another config.
  """
  targets = state_targets(
    make_mesh(experiment.mesh), vae_shapes(experiment), vae_axes(experiment)
  )
  if experiment.init.vae:
    return start.load_vae(experiment.init.vae, experiment.vae, targets)
  check_vae(experiment, workdir)
  # An older one would be the VAE of fewer steps. `train_vae` makes it anew.
  return Checkpoints(workdir / FINAL).restore(
    targets, experiment.vae_identity(), older=False
  )


def check_vae(experiment: Experiment, workdir: AnyPath) -> None:
  """Makes sure that there is a finished VAE to train on.

  Args:
    experiment: The config, whose `init` names no VAE.
    workdir: Folder of the VAE's run.

  Raises:
    UserError: There is none, or it is of another config.
  """
  folder = workdir / FINAL
  if not folder.exists():
    raise UserError(
      f'{folder} does not exist; train the VAE first: '
      'python -m unifluid_jax.train_vae'
    )
  Checkpoints(folder).newest(experiment.vae_identity())


def _trained(experiment: Experiment) -> set[str]:
  """Names of the parameters that gradients change."""
  model = abstract_vae(experiment)
  return {
    '/'.join(map(str, path))
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }
