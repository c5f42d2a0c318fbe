"""A data set of TensorFlow Datasets (TFDS)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from unifluid_jax.data import images, rgb
from unifluid_jax.data.example import Image
from unifluid_jax.data.sources.base import KEYS, SourceTask, Texts
from unifluid_jax.utils.errors import UserError


class TfdsTask(SourceTask):
  """A TFDS data set in ArrayRecord files, read without TensorFlow."""

  def __init__(
    self,
    name: str,
    split: str,
    kind: str,
    image_size: int,
    features: Mapping[str, str],
    data_dir: str | None = None,
    max_pixels: int = images.MAX_PIXELS,
    encoder_size: int = 0,
  ):
    """Opens the data set, which must have been prepared.

    Args:
      name: Name as TFDS knows it, such as 'coco_captions/2014:1.1.0'.
      split: Split as TFDS knows it, such as 'train[:90%]'.
      kind: A key of KEYS.
      image_size: Side in pixels to which images are cropped and resized.
      features: For each key of the kind, the feature that holds it, such as
        {'image': 'image', 'text': 'captions/text'}. A class label reads as
        the name of the class.
      data_dir: Where data sets are; TFDS's default if None.
      max_pixels: Pixels that an image file may have.
      encoder_size: Side in pixels of the image encoder's inputs.

    Raises:
      UserError: The data set, the split or a feature is not there.
    """
    super().__init__(kind, image_size, max_pixels, encoder_size)
    # Slow to import, and only this class needs it.
    import tensorflow_datasets as tfds

    place = f' in {data_dir}' if data_dir else ''
    try:
      self._source = tfds.data_source(
        name,
        split=split,
        data_dir=data_dir,
        download=False,
        builder_kwargs={'file_format': 'array_record'},
      )
    # What TFDS raises for an unknown name or split, for data that has not been
    # prepared, and for a builder that imports TensorFlow.
    except (ValueError, LookupError, AssertionError, ImportError) as error:
      raise UserError(
        f'cannot open split {split!r} of the TFDS data set {name!r}{place}: '
        f'{_first_line(error)} Prepare it with `tfds build '
        '--file_format=array_record`, and give its version, as in NAME:1.0.0, '
        'to read it without TensorFlow'
      ) from error
    unread = sorted({*features} - {*KEYS[kind]})
    if unread:
      raise UserError(
        f'the kind {kind!r} has no key {unread[0]!r} to find a feature for; it '
        f'has {list(KEYS[kind])}'
      )
    self._name = f'the TFDS data set {name!r}, split {split!r}'
    self._features = {}
    self._classes = {}
    for key in KEYS[kind]:
      path = tuple(features.get(key, key).split('/'))
      feature = _follow(self._source.dataset_info.features, path)
      if feature is None:
        raise UserError(
          f'the TFDS data set {name!r} has no feature {"/".join(path)!r} for '
          f'the key {key!r}; it has {list(self._source.dataset_info.features)}'
        )
      self._features[key] = path
      while isinstance(feature, tfds.features.Sequence):
        feature = feature.feature  # of several values, each
      if isinstance(feature, tfds.features.ClassLabel):
        self._classes[key] = tuple(feature.names)
    # Their files are decoded here: TFDS takes CMYK for RGBA, for example.
    self._source.decoders = _skip_images(
      self._source.dataset_info.features, tfds
    )

  def __len__(self) -> int:
    """Number of records of the split."""
    return len(self._source)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """Reads a record and keeps the kind's keys, and its 'place' for errors.

    Raises:
      UserError: TFDS cannot read it.
    """
    place = f'{self._name}, record {index}'
    try:
      record = self._source[index]
    # What TFDS' decoders and Pillow raise on broken images and examples.
    except (
      AttributeError,
      LookupError,
      OSError,
      RuntimeError,
      SyntaxError,
      TypeError,
      ValueError,
    ) as error:
      raise UserError(f'{place} cannot be read: {error}') from error
    parts = {key: _follow(record, p) for key, p in self._features.items()}
    return parts | {'place': place}

  def read_image(self, record: Mapping[str, Any], key: str) -> Image:
    """The image, from the content of a file or from a tensor's pixels.

    Raises:
      UserError: It is no gray or colored one of 8 bits.
    """
    if isinstance(record[key], bytes):
      return self.decode(record[key], f'{record["place"]}: {key!r}')
    pixels = np.asarray(record[key])
    is_image = pixels.ndim == 3 and pixels.shape[-1] in (1, 3, 4)
    if not is_image or pixels.dtype != np.uint8:
      raise UserError(
        f'{record["place"]}: {key!r} is {pixels.dtype} of shape '
        f'{pixels.shape}; it must be uint8 of (height, width, 1, 3 or 4)'
      )
    gray = pixels.shape[-1] == 1
    return rgb.to_rgb(PIL.Image.fromarray(pixels[..., 0] if gray else pixels))

  def read_texts(self, record: Mapping[str, Any], key: str) -> Texts:
    """The text or texts, or the names of the classes.

    Raises:
      UserError: The record has no text.
    """
    value = record[key]
    texts = [value] if np.ndim(value) == 0 else value
    names = self._classes.get(key)
    if names is not None:
      # -1 is an unknown class.
      texts = [names[number] for number in texts if number >= 0]
    if not len(texts):
      raise UserError(f'{record["place"]} has no text for the key {key!r}')
    return tuple(t.decode() if isinstance(t, bytes) else str(t) for t in texts)


def _skip_images(features: Any, tfds: Any) -> dict[str, Any]:
  """Decoders that leave images of 8 bits as the content of their files."""
  decoders = {}
  for key, feature in features.items():
    if isinstance(feature, tfds.features.FeaturesDict):
      decoders[key] = _skip_images(feature, tfds)
    elif type(feature) is tfds.features.Image and feature.np_dtype == np.uint8:
      decoders[key] = tfds.decode.SkipDecoding()
  return {key: decoder for key, decoder in decoders.items() if decoder}


def _follow(tree: Any, path: tuple[str, ...]) -> Any:
  """The value at a path of keys, or None."""
  for key in path:
    try:
      tree = tree[key]
    except (KeyError, TypeError):  # It has none of this name, or no parts.
      return None
  return tree


def _first_line(error: Exception) -> str:
  """The first sentence of TFDS's messages, which may list all data sets."""
  return str(error.args[0]).partition('\n')[0].rstrip('.') + '.'
