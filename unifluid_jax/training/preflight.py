"""Checks a config before any work starts and any file is written.

`check_start` is for training in a workdir, `check_config` for training steps
without a workdir, `check_plan` for plans. Each reports all problems in one
error.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from absl import logging

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import (
  UNKNOWN_BOI,
  NetworkSpec,
  make_unifluid_spec,
)
from unifluid_jax.data.lengths import check_room
from unifluid_jax.data.pipeline import check_groups
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.task import Task
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.distributed import processes
from unifluid_jax.sharding.mesh import make_mesh
from unifluid_jax.sharding.process_rows import check_rows
from unifluid_jax.training.open_sources import Opener
from unifluid_jax.training.state import check_trained
from unifluid_jax.training.text_limits import agree, is_set, set_limits
from unifluid_jax.training.vae_state import FINAL, check_vae, check_vae_rates
from unifluid_jax.utils.errors import Collector, UserError
from unifluid_jax.utils.paths import AnyPath, to_path
from unifluid_jax.weights.checkpoint_reader import CheckpointReader
from unifluid_jax.weights.initial_parameters import check_start_files
from unifluid_jax.workdir.vocabulary_file import find_tokenizer

Check = Callable[[], object]
"""Raises a `UserError` if something is wrong."""


@dataclasses.dataclass(frozen=True)
class PreparedRun:
  """A config that passed all checks, with its opened tokenizer and tasks.

  Attributes:
    experiment: The config; 'auto' limits are replaced by numbers.
    tokenizer: The vocabulary, which may not be in a file yet.
    tasks: The tasks of `data.sources`.
    vae_tasks: The tasks of `vae_training.sources`, if a VAE has to be trained.
  """

  experiment: Experiment
  tokenizer: Tokenizer
  tasks: Mapping[str, Task]
  vae_tasks: Mapping[str, Task]


def check_start(
  experiment: Experiment,
  workdir: AnyPath,
  *,
  trains_vae: bool,
  also: Iterable[Check] = (),
) -> PreparedRun:
  """Checks everything that training in a workdir needs.

  Args:
    experiment: The config.
    workdir: The run's folder; only read.
    trains_vae: Whether the VAE may be trained first; otherwise it must exist.
    also: Further checks.

  Raises:
    UserError: Lists all problems; raised in all processes.
  """
  checks = _Checks(experiment, workdir, is_here=True)
  is_done = bool(experiment.init.vae) or _has_vae(experiment, workdir)
  checks.run(*also, checks.check_devices)
  if trains_vae and not is_done:
    checks.run(checks.check_vae_batch)
    checks.open_vae_sources()
  checks.check_model()
  if not _is_started(workdir):
    checks.check_files()
    if not trains_vae and not experiment.init.vae:
      checks.run(lambda: check_vae(experiment, workdir / 'vae'))
  return checks.start()


def check_config(
  experiment: Experiment, *, also: Iterable[Check] = ()
) -> PreparedRun:
  """Checks a config for training on this machine without a workdir.

  Absent files of `init` are logged.

  Args:
    experiment: The config.
    also: Further checks.

  Raises:
    UserError: Lists all problems; raised in all processes.
  """
  checks = _Checks(experiment, None, is_here=True)
  checks.run(*also, checks.check_devices)
  checks.check_without_run()
  return checks.start()


def check_plan(experiment: Experiment) -> Experiment:
  """Checks a config that is not trained on this machine.

  Absent files are logged.

  Args:
    experiment: The config.

  Returns:
    The config with numbers in place of 'auto'.

  Raises:
    UserError: Lists all problems; raised in all processes.
  """
  checks = _Checks(experiment, None, is_here=False)
  checks.check_without_run()
  return checks.finish()


class _Checks:
  """Runs checks and collects their problems."""

  def __init__(
    self, experiment: Experiment, workdir: AnyPath | None, is_here: bool
  ):
    self._given = self._experiment = experiment
    self._workdir = workdir
    self._is_here = is_here
    self._problems = Collector()
    self._tokenizer: Tokenizer | None = None
    self._tasks: dict[str, Task] = {}
    self._vae_tasks: dict[str, Task] = {}
    self._opener = Opener(experiment, self._problems, needed=is_here)

  def run(self, *checks: Check) -> None:
    """Runs checks and collects their errors."""
    for check in checks:
      with self._problems.catch():
        check()

  def check_devices(self) -> None:
    """Checks that the devices form the mesh and divide the rows."""
    rows, accumulate = (
      self._given.data.batch_rows,
      self._given.training.grad_accum_steps,
    )
    check_rows(make_mesh(self._given.mesh), 'data.batch_rows', rows, accumulate)

  def check_vae_batch(self) -> None:
    """Checks that the devices divide the VAE's batch."""
    batch = self._given.vae_training.batch
    check_rows(make_mesh(self._given.mesh), 'vae_training.batch', batch)

  def open_vae_sources(self, needed: bool = True) -> None:
    """Opens the sources of the VAE."""
    sources = self._given.vae_training.sources
    for name, source in sources.items():
      if source.task in ('captioning', 'vqa'):
        self._problems.add(
          UserError(
            f'vae_training.sources.{name}: the task {source.task!r} generates '
            'texts; a VAE needs a task that generates images'
          )
        )
    opener = self._opener
    if not needed:
      opener = Opener(self._given, self._problems, needed=False)
    self._vae_tasks = opener.open(sources)

  def check_model(self) -> None:
    """Checks sources, vocabulary, limits, and patterns of parameter names."""
    experiment, data = self._given, self._given.data
    self._tasks = self._opener.open(data.sources)
    self.run(
      lambda: check_groups(
        data.examples, data.batch_rows, data.packing_windows
      ),
      self._check_profile,
      lambda: check_vae_rates(experiment),
      self._find_tokenizer,
      self._set_limits,
      self._check_room,
      lambda: check_trained(experiment, self._unifluid),
    )

  def check_files(self, needed: bool = True) -> None:
    """Checks the headers of the files and the run that `init` names."""
    init = self._given.init
    absent = [
      path
      for path in (init.vae, *init.sources)
      if path and not to_path(path).exists()
    ]
    if absent and not needed:
      logging.warning(
        'init is not checked; this machine does not have %s',
        ', '.join(absent),
      )
      return
    self.run(lambda: check_start_files(self._given, self._unifluid))

  def check_without_run(self) -> None:
    """Checks everything that needs neither devices nor a workdir."""
    self.open_vae_sources(needed=False)
    self.check_model()
    self.check_files(needed=False)

  def start(self) -> PreparedRun:
    """Returns the prepared run.

    Raises:
      UserError: As `finish`.
    """
    experiment = self.finish()
    assert self._tokenizer is not None  # Otherwise a problem was raised.
    return PreparedRun(
      experiment, self._tokenizer, self._tasks, self._vae_tasks
    )

  def finish(self) -> Experiment:
    """Returns the config with numbers in place of 'auto'.

    Raises:
      UserError: A process has a problem; raised in all processes.
    """
    refused = processes.gather(bool(self._problems))
    self._problems.check()
    if any(refused):
      others = ', '.join(str(i) for i, refuses in enumerate(refused) if refuses)
      raise UserError(f'processes {others} cannot start; see their errors')
    return agree(self._given, self._experiment)

  @property
  def _unifluid(self) -> NetworkSpec:
    """Spec of UniFluid with a placeholder vocabulary.

    Raises:
      UserError: The config describes no valid model.
    """
    return make_unifluid_spec(self._given, UNKNOWN_BOI)

  def _find_tokenizer(self) -> None:
    experiment = self._given
    folders = [t for t in self._tasks.values() if isinstance(t, FolderTask)]
    if not self._is_here and not folders:
      return  # No source has texts that must all fit.
    path = experiment.init.workdir or experiment.tokenizer.path
    if not path and len(self._tasks) < len(experiment.data.sources):
      return  # It must be trained on all of them.
    if path and not self._is_here and not to_path(path).exists():
      logging.warning('texts are not counted: %s does not exist', path)
      return
    self._tokenizer = find_tokenizer(experiment, self._workdir, self._tasks)

  def _set_limits(self) -> None:
    if is_set(self._given) or self._problems:
      return
    missing = [n for n in self._given.data.sources if n not in self._tasks]
    if missing or self._tokenizer is None:
      raise UserError(
        "limits of data are 'auto', but the texts that set them are not on "
        f'this machine: {", ".join(missing) or "no vocabulary"}; set numbers'
      )
    self._experiment = set_limits(
      self._given, self._with_heldout(), self._tokenizer, self._workdir
    )

  def _check_room(self) -> None:
    experiment = self._experiment
    if not is_set(experiment):
      return  # Another problem is reported.
    data = experiment.data
    # Folders that cannot be opened are reported elsewhere.
    kinds = {
      name: source.task
      for name, source in data.sources.items()
      if name in self._tasks or source.kind != 'folder' or not self._is_here
    }
    check_room(
      self._with_heldout(),
      kinds,
      self._tokenizer,
      experiment.layout(),
      data.row_capacity,
    )

  def _with_heldout(self) -> dict[str, Task]:
    """Returns the tasks, including held-out lines."""
    sources = self._given.data.sources
    return {
      name: task.of_split('all')
      if isinstance(task, FolderTask) and sources[name].split == 'train'
      else task
      for name, task in self._tasks.items()
    }

  def _check_profile(self) -> None:
    training = self._given.training
    if training.profile and training.profile[0] > training.steps:
      raise UserError(
        f'training.profile is {list(training.profile)}, but training.steps is '
        f'{training.steps}; choose steps within the run'
      )


def _has_vae(experiment: Experiment, workdir: AnyPath) -> bool:
  """Whether a run has a VAE trained for the config's number of steps."""
  step = CheckpointReader(workdir / 'vae' / FINAL).latest_step
  return step is not None and step >= experiment.vae_training.steps


def _is_started(workdir: AnyPath) -> bool:
  """Whether a run resumes from a checkpoint, and so ignores `init`."""
  return CheckpointReader(workdir / 'checkpoints').latest_step is not None
