"""Opens the sources of a config for the checks before a start."""

import dataclasses
from collections.abc import Mapping

from absl import logging

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.data import SourceConfig, check_source
from unifluid_jax.config.tasks import make_task
from unifluid_jax.data.pipeline import check_weights
from unifluid_jax.data.task import Task
from unifluid_jax.utils.errors import Collector
from unifluid_jax.utils.paths import to_path


class Opener:
  """Opens each source once and collects problems."""

  def __init__(self, experiment: Experiment, problems: Collector, needed: bool):
    """Creates an opener; opens nothing.

    Args:
      experiment: The config.
      problems: Collects problems.
      needed: Whether sources that are absent from this machine are problems.
        Otherwise they are logged, and TFDS sources are skipped.
    """
    self._experiment = experiment
    self._problems = problems
    self._needed = needed
    self._opened: dict[str, Task] = {}

  def open(self, sources: Mapping[str, SourceConfig]) -> dict[str, Task]:
    """Opens sources and checks their weights; returns tasks by name."""
    tasks: dict[str, Task] = {}
    absent = []
    for name, source in sources.items():
      with self._problems.catch():
        check_source(name, source)
        if self._needed or _is_here(source):
          tasks[name] = self._open(name, source)
        else:
          absent.append(f'{name} ({source.path})')
    if absent:
      logging.warning(
        'texts of absent sources are not checked: %s', ', '.join(absent)
      )
    weights = {n: s.weight for n, s in sources.items() if n in tasks}
    if tasks or not sources:
      with self._problems.catch():
        check_weights(weights, tasks)
    return tasks

  def _open(self, name: str, source: SourceConfig) -> Task:
    # Sources may differ in their weights only.
    key = repr(dataclasses.replace(source, weight=0.0))
    if key not in self._opened:
      self._opened[key] = make_task(self._experiment, name, source)
    return self._opened[key]


def _is_here(source: SourceConfig) -> bool:
  """Whether the texts of a source are on this machine."""
  if source.kind == 'folder':
    return to_path(source.path).exists()
  return source.kind != 'tfds'
