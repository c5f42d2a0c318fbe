"""Whether a run goes on by the config that it began with."""

from typing import Any

from absl import logging

from unifluid_jax import processes
from unifluid_jax.config import to_dict
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath
from unifluid_jax.runs.folder import CONFIG_FILE, read_experiment
from unifluid_jax.training.identity import differences


def check_same(experiment: Experiment, workdir: AnyPath, is_done: bool) -> None:
  """Tells in what a run's config differs from the one that it began with.

  Args:
    experiment: The config.
    workdir: The run's folder, with checkpoints of the same shapes.
    is_done: Whether there is nothing left to train by the config.

  Raises:
    UserError: It differs, and the run is done: its results would be told as
      those of the config.
  """
  if not (workdir / CONFIG_FILE).exists():
    return
  try:
    before = read_experiment(workdir)
  except UserError as error:
    logging.warning('%s', error)
    return
  changes = differences(_recipe(before), _recipe(experiment))
  if changes and is_done:
    raise UserError(
      f'{workdir} has been trained to its end by another config: '
      f'{"; ".join(changes[:5])}. Use another --workdir, or more '
      'training.steps to go on by this one'
    )
  if changes and processes.is_main():
    logging.info('goes on by another config: %s', '; '.join(changes))


def _recipe(experiment: Experiment) -> dict[str, Any]:
  """The parts of a config that make a difference to what is learnt."""
  recipe = {
    name: to_dict(getattr(experiment, name))
    for name in ('data', 'optimizer', 'training', 'init')
  }
  del recipe['data']['num_workers']
  for key in ('steps', 'log_every', 'checkpoint', 'profile', 'accumulate'):
    del recipe['training'][key]
  return recipe
