"""Which images of a folder are held out of training.

An image is held out by a hash of its path, so that

- the lines of an image stay together, for all tasks;
- adding, removing or moving lines moves no other line;
- a larger share holds out the same images and some more.
"""

import hashlib
import os
import pathlib
import unicodedata

SPLITS = ('train', 'heldout', 'all')
"""The lines to train on, those that are held out, and both."""


def is_heldout(path: str, folder: pathlib.Path, share: float) -> bool:
  """Whether an image is held out.

  Args:
    path: The image, relative to the folder or absolute. Different spellings of
      a path count as one, such as 'a/../fox.png' and 'fox.png'.
    folder: What the path is relative to.
    share: Share of the images that are held out, 0 to 1.
  """
  if os.path.isabs(path):
    path = os.path.relpath(path, folder.absolute())
  name = unicodedata.normalize('NFC', os.path.normpath(path))
  digest = hashlib.sha256(name.encode(errors='surrogateescape')).digest()
  return int.from_bytes(digest[:8], 'big') < share * 2**64
