"""Moves interrupted saves and damaged checkpoints aside.

While a checkpoint is being written, its folder is called
`STEP.orbax-checkpoint-tmp`. A bucket cannot rename: there it is `STEP` without
the file `commit_success.txt`. A killed process leaves the folder behind.
"""

import re

from absl import logging
from etils import epath

from unifluid_jax.utils.paths import AnyPath

_NAME = re.compile(r'(\d+)(\.orbax-checkpoint-tmp.*)?')


def put_aside(directory: AnyPath, complete: list[int]) -> None:
  """Moves interrupted saves to `DIRECTORY.partial.NAME`.

  A run cannot use them. They may show what happened, and are kept until the
  next interruption. Only for a run that has the folder to itself.

  Args:
    directory: A folder of checkpoints.
    complete: The steps that are complete.
  """
  directory = epath.Path(directory)
  if not directory.exists():
    return
  names = {
    path.name: _NAME.fullmatch(path.name) for path in directory.iterdir()
  }
  partial = {
    name: match[1]
    for name, match in names.items()
    if match and name not in map(str, complete)
  }
  # Beside the folder: a bucket has no empty folder to move it to.
  aside = f'{directory.name}.partial.'
  before = [p for p in directory.parent.iterdir() if p.name.startswith(aside)]
  for path in before if partial else ():
    path.rmtree()
  for name, step in partial.items():
    kept = directory.parent / f'{aside}{name}'
    (directory / name).rename(kept)
    logging.warning(
      'the save of step %s was interrupted and is not used; it is kept in %s '
      'until the next interruption',
      step,
      kept,
    )


def put_damaged_aside(directory: AnyPath, reasons: dict[int, str]) -> None:
  """Moves damaged checkpoints to `DIRECTORY.damaged.STEP` and logs it.

  They are kept until the same step is damaged again. Only for a run that has
  the folder to itself.

  Args:
    directory: A folder of checkpoints.
    reasons: The steps that are damaged, and what is wrong with each.
  """
  directory = epath.Path(directory)
  for step, reason in reasons.items():
    kept = directory.parent / f'{directory.name}.damaged.{step}'
    if kept.exists():
      kept.rmtree()
    (directory / str(step)).rename(kept)
    logging.warning(
      'checkpoint %s is damaged (%s) and is not used; it is kept in %s, delete '
      'it when you no longer need it',
      directory / str(step),
      reason,
      kept,
    )
