"""Sets the limits of a config that are 'auto' from the texts of its sources.

- `data.max_text`: the longest text, rounded up to leave room for prompts of
  other words.
- `data.row_capacity.length` and `data.row_capacity.text_targets`: room for the
  longest example, and for as many average ones as a row gets.

A resumed run keeps its limits unless a text has outgrown them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.counting import (
  NAMES,
  Limits,
  count_texts,
  elementwise_max,
)
from unifluid_jax.data.layout import LayoutConfig
from unifluid_jax.data.packing import AUTO
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.workdir.run_config import CONFIG_FILE, read_experiment

_TEXT_MULTIPLE = 32
"""`max_text` is rounded up to this."""

_ROW_MULTIPLE = 8
"""Sizes of rows are rounded up to this."""

_SLACK = 1.2
"""Rows have room for this many times what their examples need on average."""

_NO_LIMIT = 2**31


def is_set(experiment: Experiment) -> bool:
  """Whether no limit of a config is 'auto'."""
  return AUTO not in _limits_of(experiment)


def with_limits(experiment: Experiment, limits: Limits) -> Experiment:
  """A config with these limits in place of those that are 'auto'."""
  chosen = Limits(
    *(
      limit if own == AUTO else own
      for own, limit in zip(_limits_of(experiment), limits, strict=True)
    )
  )
  data = experiment.data
  row = dataclasses.replace(
    data.row_capacity, length=chosen.length, text_targets=chosen.text_targets
  )
  data = dataclasses.replace(data, max_text=chosen.max_text, row_capacity=row)
  return dataclasses.replace(experiment, data=data)


def with_recorded_limits(
  experiment: Experiment, workdir: AnyPath | None
) -> Experiment:
  """A config with the limits that a run was started with.

  Args:
    experiment: The config.
    workdir: The run's folder; None for no run.

  Returns:
    The same config where no limit is 'auto', or nothing has been trained.
  """
  if is_set(experiment) or workdir is None:
    return experiment
  is_trained = (workdir / 'checkpoints').exists()
  if not is_trained or not (workdir / CONFIG_FILE).exists():
    return experiment
  return with_limits(experiment, _limits_of(read_experiment(workdir)))


def set_limits(
  experiment: Experiment,
  tasks: Mapping[str, Task],
  tokenizer: Tokenizer,
  workdir: AnyPath | None,
) -> Experiment:
  """A config with limits in place of 'auto'.

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`.
    tokenizer: Encodes the texts.
    workdir: Folder of the run, which may go on; None for no run.

  Raises:
    UserError: A limit is 'auto', and a source is of a kind whose texts are not
      known before they are read.
  """
  if is_set(experiment):
    return experiment
  folders = _folders(experiment, tasks)
  layout = with_limits(experiment, Limits(1, 1, 1)).layout()
  recorded = with_recorded_limits(experiment, workdir)
  if is_set(recorded):
    limits = _outgrown(experiment, recorded, folders, tokenizer, layout)
  else:
    limits = _measured(experiment, folders, tokenizer, layout)
  return with_limits(experiment, limits)


def agree(given: Experiment, found: Experiment) -> Experiment:
  """The config with the same limits in all processes, which wait for it.

  Args:
    given: The config, whose limits may be 'auto'.
    found: The config with the limits that this process has set.
  """
  if is_set(given):
    return given
  limits = (max(processes.gather(limit)) for limit in _limits_of(found))
  return with_limits(given, Limits(*limits))


def _limits_of(experiment: Experiment) -> Limits:
  data = experiment.data
  return Limits(
    data.max_text, data.row_capacity.length, data.row_capacity.text_targets
  )


def _folders(
  experiment: Experiment, tasks: Mapping[str, Task]
) -> dict[str, FolderTask]:
  """The sources, all of which must be folders."""
  folders = {n: t for n, t in tasks.items() if isinstance(t, FolderTask)}
  others = [
    f'{name} ({experiment.data.sources[name].kind})'
    for name in tasks
    if name not in folders
  ]
  if others:
    limits = zip(NAMES, _limits_of(experiment), strict=True)
    unset = ', '.join(name for name, limit in limits if limit == AUTO)
    raise UserError(
      f"{unset}: {AUTO!r} counts the texts of sources of kind 'folder', and "
      f'does not know those of {", ".join(others)}; give numbers'
    )
  return folders


def _outgrown(
  experiment: Experiment,
  recorded: Experiment,
  folders: Mapping[str, FolderTask],
  tokenizer: Tokenizer,
  layout: LayoutConfig,
) -> Limits:
  """The recorded limits, raised where a text has outgrown them."""
  before = _limits_of(recorded)
  # Limits that the config gives are checked elsewhere.
  pairs = zip(_limits_of(experiment), before, strict=True)
  room = Limits(*(limit if own == AUTO else _NO_LIMIT for own, limit in pairs))
  longer = (
    counted.needs
    for task in folders.values()
    for counted in count_texts(task, tokenizer, layout, room)
  )
  return elementwise_max((before, *longer))


def _measured(
  experiment: Experiment,
  folders: Mapping[str, FolderTask],
  tokenizer: Tokenizer,
  layout: LayoutConfig,
) -> Limits:
  """Limits for all texts."""
  data, nothing = experiment.data, Limits(-1, -1, -1)
  needs = {
    name: [c.needs for c in count_texts(task, tokenizer, layout, nothing)]
    for name, task in folders.items()
  }
  longest = elementwise_max(
    need for of_one in needs.values() for need in of_one
  )
  weights = {name: data.sources[name].weight for name in folders}
  total = sum(weights.values())
  # What the examples of a row need on average.
  row = [
    _SLACK
    * data.examples
    / data.batch_rows
    * sum(weights[n] * _mean([x[i] for x in needs[n]]) for n in needs)
    / total
    for i in range(len(longest))
  ]
  return Limits(
    max_text=_round_up(longest.max_text, _TEXT_MULTIPLE),
    length=_round_up(max(longest.length, row[1]), _ROW_MULTIPLE),
    text_targets=_round_up(max(longest.text_targets, row[2]), _ROW_MULTIPLE),
  )


def _mean(values: Sequence[int]) -> float:
  return sum(values) / len(values)


def _round_up(value: float, multiple: int) -> int:
  return int(-(-value // multiple) * multiple)
