"""Compares a resumed run's config with the one it started with."""

from typing import Any

from absl import logging

from unifluid_jax.config.builder import to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights.identity import differences
from unifluid_jax.workdir.run_config import CONFIG_FILE, read_experiment

Recipe = dict[str, Any]


def check_same(
  experiment: Experiment, workdir: AnyPath, trained: int | None
) -> None:
  """Logs how a run's config differs from the one it started with.

  Args:
    experiment: The config.
    workdir: The run's folder.
    trained: Step of the newest checkpoint; None without one.

  Raises:
    UserError: It differs and no step is left to train, so results would be
      attributed to the wrong config.
  """
  if trained is None:
    return
  steps = experiment.training.steps
  changes = _changes(workdir, _recipe, experiment)
  if trained > steps:
    changes = [f'training.steps: {trained} -> {steps}', *changes]
  _report(workdir, changes, trained >= steps)


def check_same_vae(
  experiment: Experiment, workdir: AnyPath, is_done: bool
) -> None:
  """Does the same for the run of a VAE.

  Args:
    experiment: The config.
    workdir: The folder of the VAE's run.
    is_done: Whether no step is left to train.

  Raises:
    UserError: As `check_same`.
  """
  _report(workdir, _changes(workdir, _vae_recipe, experiment), is_done)


def _changes(workdir: AnyPath, recipe, experiment: Experiment) -> list[str]:
  if not (workdir / CONFIG_FILE).exists():
    return []
  try:
    before = read_experiment(workdir)
  except UserError as error:
    logging.warning('%s', error)
    return []
  return differences(recipe(before), recipe(experiment))


def _report(workdir: AnyPath, changes: list[str], is_done: bool) -> None:
  if changes and is_done:
    raise UserError(
      f'{workdir} was trained to its end with another config: '
      f'{"; ".join(changes[:5])}. Use another --workdir, or more steps to '
      'continue with this config'
    )
  if changes and processes.is_main():
    logging.info('continues with another config: %s', '; '.join(changes))


def _recipe(experiment: Experiment) -> Recipe:
  """Returns the parts of a config that change what a model learns."""
  names = ('tokenizer', 'data', 'optimizer', 'training', 'init')
  recipe = {name: to_dict(getattr(experiment, name)) for name in names}
  del recipe['data']['num_workers'], recipe['tokenizer']['path']
  how = ('steps', 'log_every', 'heldout_every', 'probe_every', 'checkpoint')
  for key in (*how, 'profile', 'grad_accum_steps'):
    del recipe['training'][key]
  return recipe


def _vae_recipe(experiment: Experiment) -> Recipe:
  """Returns the parts of a config that change what a VAE learns."""
  data, training = to_dict(experiment.data), to_dict(experiment.vae_training)
  for key in ('steps', 'log_every', 'checkpoint'):
    del training[key]
  for source in training['sources'].values():
    source['concepts'] = source['concepts'] or data['concepts']
  return {
    'data': {key: data[key] for key in ('image_size', 'artists', 'heldout')},
    'vae_training': training,
  }
