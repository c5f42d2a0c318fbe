"""From a record of a user's data to an example.

A record says by its keys what it holds; the kind of the task says which keys
it reads and which one it learns to write:

    kind            reads                writes
    text_to_image   text                 image
    captioning      image                text
    vqa             image, question      answer
    editing         source, instruction  image

A text may be a list of texts, any of which is right: training draws one,
evaluation takes the first and knows the others as references.
"""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from unifluid_jax.data import images, prompts
from unifluid_jax.data.example import Example, Image
from unifluid_jax.utils.errors import UserError

KEYS = {
  'text_to_image': ('text', 'image'),
  'captioning': ('image', 'text'),
  'vqa': ('image', 'question', 'answer'),
  'editing': ('source', 'instruction', 'image'),
}
IMAGE_KEYS = ('image', 'source')

Texts = tuple[str, ...]


class SourceTask(abc.ABC):
  """What the tasks over a user's data share: from a record to an example."""

  def __init__(
    self,
    kind: str,
    image_size: int,
    max_pixels: int = images.MAX_PIXELS,
    encoder_size: int = 0,
  ):
    """Checks the kind.

    Args:
      kind: A key of KEYS.
      image_size: Side in pixels to which target images are cropped and resized.
      max_pixels: Pixels that an image file may have.
      encoder_size: Side in pixels of the image encoder's inputs.
    """
    if kind not in KEYS:
      raise UserError(f'no task of kind {kind!r}; choose one of {list(KEYS)}')
    self.kind = kind
    self.image_size = image_size
    self.max_pixels = max_pixels
    self.encoder_size = encoder_size

  @abc.abstractmethod
  def __len__(self) -> int:
    """Number of records."""

  @abc.abstractmethod
  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """The record of an index, with its 'place' for messages."""

  @abc.abstractmethod
  def read_image(self, record: Mapping[str, Any], key: str) -> Image:
    """The image of a record, of any size."""

  def decode(self, data: bytes, name: str) -> Image:
    """The image of a file's content; `name` is what messages call it."""
    return images.decode(
      data,
      name,
      max(self.image_size, self.encoder_size),
      self.max_pixels,
      'scale it down or raise data.max_pixels',
    )

  @abc.abstractmethod
  def read_texts(self, record: Mapping[str, Any], key: str) -> Texts:
    """Returns the text of a record, or its alternative texts."""

  def build(
    self, record: Mapping[str, Any], rng: np.random.Generator, augment: bool
  ) -> Example:
    """Makes an example; `augment` draws among texts, images stay as they are.

    An image is not mirrored, since a text may tell left from right.
    """
    values: dict[str, Any] = {}
    texts: dict[str, Texts] = {}
    for key in KEYS[self.kind]:
      if key in IMAGE_KEYS:
        # Images that are read keep their size. `layout` resizes them once, to
        # the side that the encoder or the VAE needs.
        image = self.read_image(record, key)
        is_target = key == KEYS[self.kind][-1]
        values[key] = images.fit(image, self.image_size) if is_target else image
      else:
        texts[key] = self.read_texts(record, key)
        choice = rng.integers(len(texts[key])) if augment else 0
        values[key] = texts[key][choice]
    target = KEYS[self.kind][-1]
    facts = {'references': texts[target]} if target in texts else {}
    return Example(
      _prefix(self.kind, values),
      values[target],
      self.kind,
      facts,
      record['place'],
    )


def prompt(kind: str, values: Mapping[str, Any]) -> str:
  """The text of a kind's prefix; `values` are those of its keys."""
  match kind:
    case 'text_to_image':
      text: str = values['text']
      return text
    case 'captioning':
      return prompts.CAPTION
    case 'vqa':
      return prompts.ANSWER.format(question=values['question'])
    case _:
      return prompts.EDIT.format(instruction=values['instruction'])


def _prefix(kind: str, values: Mapping[str, Any]) -> tuple[str | Image, ...]:
  """What an example of a kind reads."""
  if kind == 'text_to_image':
    return (prompt(kind, values),)
  image = values['source' if kind == 'editing' else 'image']
  return (image, prompt(kind, values))
