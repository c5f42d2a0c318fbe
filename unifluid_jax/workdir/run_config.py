"""The config in a run's folder."""

import json

from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.paths import AnyPath, write_whole

CONFIG_FILE = 'config.json'
"""The whole config of a run, in the run's folder."""

_REMEDY = 'start the training again, which replaces it'


def read_experiment(workdir: AnyPath) -> Experiment:
  """The config of a run, from its folder.

  Raises:
    UserError: It is no folder of a run.
  """
  file = workdir / CONFIG_FILE
  if not file.exists():
    raise UserError(
      f'{file} does not exist; {workdir} must be the --workdir of a training '
      'run'
    )
  try:
    config = parse_json(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{file} is not JSON ({error}); {_REMEDY}') from error
  if not isinstance(config, dict):
    raise UserError(f'{file} is not a JSON object; {_REMEDY}')
  return build(Experiment, config, f'{file}: config')


def write_config(experiment: Experiment, workdir: AnyPath) -> None:
  """Writes the config into a workdir, which it creates; process 0 only.

  The same config stays the file that it is, which may be older than results.
  """
  if processes.is_main():
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / CONFIG_FILE
    content = f'{json.dumps(to_dict(experiment), indent=2)}\n'.encode()
    if not file.exists() or file.read_bytes() != content:
      write_whole(file, content)
