"""An example: what a task gives the model to read, and what to write.

A task only builds examples. Nothing after this file branches on a task name.
"""

import dataclasses
from typing import Any

import numpy as np

Image = np.ndarray
"""uint8 [side, side, 3], RGB."""


@dataclasses.dataclass(frozen=True)
class Example:
  """One training or evaluation example.

  Attributes:
    prefix: What is read, in order: texts, and images for the encoder.
    target: What is written: a text, or an image.
    task: Name of the task, for logs and evaluation only.
    facts: What evaluation needs to know (references, concept, artist, ...).
    place: Where its record is, for messages; empty for the embedded data.
  """

  prefix: tuple[str | Image, ...]
  target: str | Image
  task: str = ''
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  place: str = ''
