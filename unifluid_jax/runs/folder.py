"""The folder of a run: its config and its vocabulary."""

import json
import secrets
from typing import Any

from absl import logging

from unifluid_jax import processes
from unifluid_jax.config import build, to_dict
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError
from unifluid_jax.experiment import Experiment
from unifluid_jax.paths import AnyPath, write_whole
from unifluid_jax.training.identity import differences

CONFIG_FILE = 'config.json'
"""The whole config of a run, in the run's folder."""

_MEND = 'start the training again, which writes it anew'


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
  try:
    config = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{file} is no JSON ({error}); {_MEND}') from error
  if not isinstance(config, dict):
    raise UserError(f'{file} is no JSON object; {_MEND}')
  return build(Experiment, config, f'{file}: config')


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


def check_shared(workdir: AnyPath) -> None:
  """Makes sure that all processes were given the folder of process 0.

  A folder of their own could look the same, from an earlier run. So they look
  for a file of a name that there has never been.

  Raises:
    UserError: In all processes, if one of them has another folder.
  """
  token, *others = processes.gather(secrets.randbits(31))
  if not others:
    return
  proof = workdir / f'shared.{token}.partial'
  if processes.is_main():
    write_whole(proof, b'')
  processes.wait('shared folder')
  sees = processes.gather(proof.exists())
  if processes.is_main():
    proof.unlink()
  if not all(sees):
    blind = ', '.join(str(i) for i, see in enumerate(sees) if not see)
    raise UserError(
      f'--workdir={workdir} is not the folder of process 0 for the processes '
      f'{blind}; give all processes the same one, on a disk that all share'
    )


def write_config(experiment: Experiment, workdir: AnyPath) -> None:
  """Writes the config of a run into its folder; process 0 does."""
  if processes.is_main():
    text = json.dumps(to_dict(experiment), indent=2)
    write_whole(workdir / CONFIG_FILE, f'{text}\n'.encode())


def shared_tokenizer(experiment: Experiment, workdir: AnyPath) -> Tokenizer:
  """The vocabulary of a run, which process 0 makes if there is none yet."""
  if processes.is_main():
    experiment.make_tokenizer(workdir)
  processes.wait('tokenizer')
  return experiment.make_tokenizer(workdir)
