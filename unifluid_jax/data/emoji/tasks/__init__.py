"""The tasks of the embedded data set, by name: the four of UniFluid, and bare
pictures for the VAE."""

from collections.abc import Sequence

from unifluid_jax.data.emoji.splits import EmojiConfig
from unifluid_jax.data.emoji.tasks.captioning import Captioning
from unifluid_jax.data.emoji.tasks.editing import Editing
from unifluid_jax.data.emoji.tasks.emoji_task import EmojiTask
from unifluid_jax.data.emoji.tasks.picture import PictureTask
from unifluid_jax.data.emoji.tasks.text_to_image import TextToImage
from unifluid_jax.data.emoji.tasks.vqa import VisualQuestionAnswering
from unifluid_jax.utils.errors import UserError

TASKS: dict[str, type[EmojiTask]] = {
  task.name: task
  for task in (
    TextToImage,
    Captioning,
    VisualQuestionAnswering,
    Editing,
    PictureTask,
  )
}


def make_task(
  name: str, config: EmojiConfig, split: str, kinds: Sequence[str] = ()
) -> EmojiTask:
  """Makes a task's source of records and examples.

  Args:
    name: A key of TASKS.
    config: Concepts, artists and image size.
    split: 'train', 'cell' or 'concept'; editing also has 'pair'.
    kinds: Kinds of questions or edits; none for all.

  Raises:
    UserError: There is no such task, split or kind, or the split is empty.
  """
  if name not in TASKS:
    raise UserError(
      f'unknown emoji task {name!r}; choose one of {", ".join(TASKS)}.'
    )
  return TASKS[name](config, split, kinds)
