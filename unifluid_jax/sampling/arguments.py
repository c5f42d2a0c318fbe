"""Checks of the arguments that users pass to a model.

Each raises an error that is a `UserError` and the built-in error that Python
users expect: `TypeError` for a wrong type, `ValueError` for a wrong value.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unifluid_jax.data.example import Image
from unifluid_jax.utils.errors import ArgumentTypeError, ArgumentValueError

MAX_SEED = 2**32 - 1
"""Largest seed: JAX keys are made from 32 bits, larger seeds would alias."""


def check_integer(name: str, value: Any, least: int, most: int) -> int:
  """Returns the value as an int; accepts numpy integers, rejects bool.

  Args:
    name: Name of the argument.
    value: What was passed.
    least: Smallest value that is allowed.
    most: Largest value that is allowed.

  Raises:
    ArgumentTypeError: It is not an integer.
    ArgumentValueError: It is out of range.
  """
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise ArgumentTypeError(
      f'{name} is {value!r} ({_type(value)}); pass an integer'
    )
  number = int(value)
  if not least <= number <= most:
    raise ArgumentValueError(
      f'{name} is {value}; it must be in {least}..{most}'
    )
  return number


def check_seed(seed: Any) -> int:
  """Returns the seed, an integer in 0..2^32 - 1."""
  return check_integer('seed', seed, 0, MAX_SEED)


def check_instance(name: str, value: Any, cls: type) -> None:
  """Rejects a value of another type.

  Raises:
    ArgumentTypeError: With both types.
  """
  if not isinstance(value, cls):
    raise ArgumentTypeError(
      f'{name} is {value!r} ({_type(value)}); pass a {cls.__name__}'
    )


def check_texts(name: str, texts: Any) -> list[str]:
  """Returns the texts as a list of `str`.

  Raises:
    ArgumentTypeError: It is not a sequence, such as a bare string or a
      generator, or an item is not a `str`.
    ArgumentValueError: A text is not valid Unicode.
  """
  if isinstance(texts, str | bytes):
    raise ArgumentTypeError(
      f'{name} is {texts!r}, which is not a list of texts; pass [{texts!r}]'
    )
  if not isinstance(texts, Sequence | np.ndarray) or np.ndim(texts) != 1:
    raise ArgumentTypeError(
      f'{name} is {texts!r} ({_type(texts)}); pass a list of str'
    )
  for i, text in enumerate(texts):
    if not isinstance(text, str):
      raise ArgumentTypeError(
        f'{name}[{i}] is {text!r} ({_type(text)}); pass a str'
      )
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise ArgumentValueError(
        f'{name}[{i}] is not valid Unicode: {error}'
      ) from error
  return [str(text) for text in texts]


def check_images(name: str, images: Any) -> list[Image]:
  """Returns the images as uint8 arrays [H W 3] of any size.

  Raises:
    ArgumentTypeError: It is not a sequence of arrays, or their dtype is not
      uint8.
    ArgumentValueError: An image is of another shape, or is empty.
  """
  if isinstance(images, str | bytes) or not isinstance(
    images, Sequence | np.ndarray
  ):
    raise ArgumentTypeError(
      f'{name} is of type {_type(images)}; pass a list of uint8 arrays of '
      'shape (height, width, 3)'
    )
  if isinstance(images, np.ndarray) and images.ndim == 0:
    raise ArgumentTypeError(f'{name} is a single number; pass a list of images')
  arrays = [np.asarray(image) for image in images]
  for i, array in enumerate(arrays):
    wanted = (
      f'{name}[{i}] has shape {array.shape} and dtype {array.dtype}; pass '
      'uint8 RGB of shape (height, width, 3)'
    )
    if array.dtype != np.uint8:
      raise ArgumentTypeError(wanted)
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size:
      raise ArgumentValueError(wanted)
  return arrays


def check_masks(masks: Any, images: Sequence[Image]) -> list[np.ndarray]:
  """Returns the masks of images, each bool [H W] and True where to redraw.

  Args:
    masks: What was passed: bool or uint8 arrays.
    images: The image of each mask.

  Raises:
    ArgumentTypeError: It is not a sequence of bool or uint8 arrays.
    ArgumentValueError: There are more or fewer masks than images, or a mask has
      another height or width than its image.
  """
  if isinstance(masks, str | bytes) or not isinstance(
    masks, Sequence | np.ndarray
  ):
    raise ArgumentTypeError(
      f'masks is of type {_type(masks)}; pass a list of bool arrays of shape '
      '(height, width)'
    )
  if isinstance(masks, np.ndarray) and masks.ndim == 0:
    raise ArgumentTypeError('masks is a single number; pass a list of masks')
  arrays = [np.asarray(mask) for mask in masks]
  check_same_length({'masks': arrays, 'images': images})
  for i, (array, image) in enumerate(zip(arrays, images, strict=True)):
    wanted = (
      f'masks[{i}] has shape {array.shape} and dtype {array.dtype}; pass bool '
      f'or uint8 of shape {image.shape[:2]}, that of its image'
    )
    if array.dtype not in (np.bool_, np.uint8):
      raise ArgumentTypeError(wanted)
    if array.shape != image.shape[:2]:
      raise ArgumentValueError(wanted)
  return [array != 0 for array in arrays]


def check_array(name: str, array: Any, shape: tuple, dtype: type) -> np.ndarray:
  """Returns the array if its dtype, and its shape after the first axis, fit.

  Args:
    name: Name of the argument.
    array: What was passed.
    shape: Shape of one row.
    dtype: `np.floating` or `np.uint8`.

  Raises:
    ArgumentTypeError: It is of another dtype.
    ArgumentValueError: It is of another shape.
  """
  array = np.asarray(array)
  wanted = (
    f'{name} has shape {array.shape} and dtype {array.dtype}; pass '
    f'{dtype.__name__} of shape (n, {", ".join(map(str, shape))})'
  )
  if not np.issubdtype(array.dtype, dtype):
    raise ArgumentTypeError(wanted)
  if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
    raise ArgumentValueError(wanted)
  return array


def check_same_length(lists: Mapping[str, Sequence[Any]]) -> None:
  """Rejects lists, by name of the argument, that do not pair up.

  Raises:
    ArgumentValueError: With the name and the length of each.
  """
  if len({len(values) for values in lists.values()}) > 1:
    counts = ' and '.join(f'{len(v)} {name}' for name, v in lists.items())
    raise ArgumentValueError(
      f'got {counts}; pass as many of one as of the other'
    )


def _type(value: Any) -> str:
  return type(value).__name__
