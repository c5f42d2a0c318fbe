"""Opens the sources that a config names."""

from collections.abc import Mapping

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.data import SourceConfig, check_source
from unifluid_jax.data.emoji.tasks import make_task as make_emoji_task
from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.sources.tfds import TfdsTask
from unifluid_jax.data.task import Task
from unifluid_jax.utils.paths import to_path


def make_tasks(
  experiment: Experiment, sources: Mapping[str, SourceConfig]
) -> dict[str, Task]:
  """Opens sources of examples.

  Args:
    experiment: The config.
    sources: Sources by name, such as `experiment.data.sources`.

  Raises:
    UserError: A source cannot be opened, or sets keys that its kind ignores.
  """
  return {
    name: make_task(experiment, name, source)
    for name, source in sources.items()
  }


def make_task(experiment: Experiment, name: str, source: SourceConfig) -> Task:
  """Opens one source.

  Args:
    experiment: The config.
    name: Name of the source, for messages.
    source: The source.

  Raises:
    UserError: As `make_tasks`.
  """
  check_source(name, source)
  data = experiment.data
  encoder_size = experiment.model.encoder.image_size
  match source.kind:
    case 'folder':
      return FolderTask(
        source.path,
        source.task,
        data.image_size,
        source.split,
        data.heldout,
        data.max_pixels,
        encoder_size,
      )
    case 'tfds':
      return TfdsTask(
        source.path,
        source.split,
        source.task,
        data.image_size,
        source.features,
        str(to_path(source.data_dir)) if source.data_dir else None,
        data.max_pixels,
        encoder_size,
      )
    case _:
      emoji = experiment.emoji(source.concepts)
      return make_emoji_task(source.task, emoji, source.split, source.kinds)


def heldout_tasks(
  experiment: Experiment, tasks: Mapping[str, Task]
) -> dict[str, FolderTask]:
  """Opens the lines that the training mixture's sources hold out.

  Args:
    experiment: The config.
    tasks: The tasks of `data.sources`, by name.

  Returns:
    Tasks by the same names, without sources that hold out no line.
  """
  sources = experiment.data.sources
  heldout = {
    name: task.of_split('heldout')
    for name, task in tasks.items()
    if isinstance(task, FolderTask) and sources[name].split == 'train'
  }
  return {name: task for name, task in heldout.items() if len(task)}
