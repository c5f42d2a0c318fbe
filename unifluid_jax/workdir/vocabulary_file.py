"""The vocabulary in a run's folder."""

from collections.abc import Mapping

import jax

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.data.vocabulary import train_tokenizer
from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath, to_path

TOKENIZER_FILE = 'tokenizer.model'


def find_tokenizer(
  experiment: Experiment,
  workdir: AnyPath | None,
  tasks: Mapping[str, Task] | None = None,
) -> Tokenizer:
  """Finds the vocabulary of a run: the run's own, else the config's.

  A vocabulary that has to be trained is trained on the texts of the tasks. If
  the run's own has fewer pieces than the config asks for, as few texts make,
  it is made anew until something has been trained with it.

  Args:
    experiment: The config.
    workdir: The run's folder, which is only read; None for no run.
    tasks: The tasks of `data.sources`; None to open them if they are needed.

  Raises:
    UserError: There is no vocabulary, or it does not fit the config.
  """
  config = experiment.tokenizer
  path = config.path
  if experiment.init.workdir:
    path = str(to_path(experiment.init.workdir) / TOKENIZER_FILE)
  if workdir is not None and (workdir / TOKENIZER_FILE).exists():
    own = Tokenizer.load(workdir / TOKENIZER_FILE)
    is_whole = path or own.vocab_size >= config.vocab_size
    if is_whole or (workdir / 'checkpoints').exists():
      _check_is_wanted(experiment, own, path, workdir / TOKENIZER_FILE)
      experiment.check_vocab_size(own.vocab_size)
      return own
  if path:
    tokenizer = Tokenizer.load(path)
    experiment.check_vocab_size(tokenizer.vocab_size)
    return tokenizer
  if tasks is None:
    tasks = make_tasks(experiment, experiment.data.sources)
  return train_tokenizer(tasks, config.vocab_size)


def keep_tokenizer(tokenizer: Tokenizer, workdir: AnyPath) -> None:
  """Writes a vocabulary into a run's folder, unless it is there already."""
  file = workdir / TOKENIZER_FILE
  if not file.exists() or file.read_bytes() != tokenizer.model:
    tokenizer.save(file)


def share_tokenizer(tokenizer: Tokenizer, workdir: AnyPath) -> None:
  """Writes the vocabulary of a run into its folder, in process 0.

  Raises:
    UserError: Another process has another vocabulary.
  """
  if processes.is_main():
    keep_tokenizer(tokenizer, workdir)
  processes.wait('tokenizer')
  file = workdir / TOKENIZER_FILE
  if Tokenizer.load(file).fingerprint != tokenizer.fingerprint:
    raise UserError(
      f'{file} of process 0 is another vocabulary than that of process '
      f'{jax.process_index()}; give all processes the same data and versions'
    )


def _check_is_wanted(
  experiment: Experiment, own: Tokenizer, path: str, file: AnyPath
) -> None:
  """Rejects a run's own vocabulary if the config asks for another."""
  vocab_size = experiment.tokenizer.vocab_size
  if not path:
    wanted = f'at most {vocab_size} pieces'
    same = own.vocab_size <= vocab_size
  else:
    # The file may be gone once the run has its copy.
    wanted, source = f'that of {path}', to_path(path)
    same = (
      not source.exists()
      or Tokenizer.load(source).fingerprint == own.fingerprint
    )
  if not same:
    raise UserError(
      f'{file} has {own.vocab_size} pieces, and the config asks for another '
      f'vocabulary ({wanted}); use another --workdir, or remove the file if '
      'nothing has been trained with it'
    )
