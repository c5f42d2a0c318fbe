"""The training state of the VAE at step 0, and the finished VAE."""

import jax.numpy as jnp
import optax
from flax import nnx

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_vae_spec
from unifluid_jax.models import parameters
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.sharding.mesh import make_mesh
from unifluid_jax.training.optimizer import make_optimizer
from unifluid_jax.training.vae_step import VAEState
from unifluid_jax.utils.errors import Collector, UserError, check_matches
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights import init_from_files
from unifluid_jax.weights.checkpoint_reader import CheckpointReader

FINAL = 'final'
"""Folder of the finished VAE: EMA weights, measured statistics."""


def check_vae_rates(experiment: Experiment) -> None:
  """Rejects factors of the learning rate that no parameter of the VAE has.

  Raises:
    UserError: With the factors.
  """
  names = make_vae_spec(experiment).logical_axes
  problems = Collector()
  for pattern in experiment.vae_training.optimizer.lr_multipliers:
    key = f'vae_training.optimizer.lr_multipliers has {pattern!r}'
    with problems.catch():
      check_matches(key, pattern, names)
  problems.check()


def make_vae_optimizer(experiment: Experiment) -> optax.GradientTransformation:
  """The update rule of the VAE's trained parameters.

  Raises:
    UserError: As `check_vae_rates`.
  """
  check_vae_rates(experiment)
  config, axes = experiment.vae_training, make_vae_spec(experiment).logical_axes
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
  flat = make_vae_spec(experiment).fresh_parameters(experiment.seed) | start
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
    UserError: The VAE is missing, damaged or of another config.
  """
  targets = make_vae_spec(experiment).place(make_mesh(experiment.mesh))
  if experiment.init.vae:
    return init_from_files.load_vae(
      experiment.init.vae, experiment.vae, targets
    )
  check_vae(experiment, workdir)
  # An older one would be the VAE of fewer steps. `train_vae` trains it again.
  return CheckpointReader(workdir / FINAL).restore(
    targets, experiment.vae_identity(), older=False
  )


def check_vae(experiment: Experiment, workdir: AnyPath) -> None:
  """Checks that the run has a finished VAE.

  Args:
    experiment: The config, whose `init` names no VAE.
    workdir: Folder of the VAE's run.

  Raises:
    UserError: The VAE is missing or of another config.
  """
  folder = workdir / FINAL
  if not folder.exists():
    raise UserError(
      f'{folder} does not exist; train the VAE first: '
      'python -m unifluid_jax.train_vae'
    )
  CheckpointReader(folder).newest(experiment.vae_identity())


def _trained(experiment: Experiment) -> set[str]:
  """Names of the parameters that gradients change."""
  spec = make_vae_spec(experiment)
  model = parameters.unflatten(spec.graphdef, spec.abstract_parameters)
  return {
    '/'.join(map(str, path))
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }
