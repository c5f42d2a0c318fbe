"""Decoded Pillow images of any mode to RGB."""

import numpy as np
import PIL.Image
from jaxtyping import Bool, Integer, Shaped, UInt8

_BAND = 2**20
"""Pixels that are converted at a time, which bounds the memory."""

_PHOTOMETRIC, _BITS = 262, 258  # TIFF tags.


def to_rgb(image: PIL.Image.Image) -> UInt8[np.ndarray, 'H W 3']:
  """Converts an image of any mode to RGB, composited over white.

  Args:
    image: The image. Its mode is not 'F', whose white is not known.
  """
  if image.mode.startswith('I'):
    image = _narrow(image)
  width, height = image.size
  pixels = np.empty((height, width, 3), np.uint8)
  rows = max(1, _BAND // width)
  for top in range(0, height, rows):
    bottom = min(top + rows, height)
    band = image.crop((0, top, width, bottom))
    pixels[top:bottom] = np.asarray(_over_white(band))
  return pixels


def clear_where(
  image: PIL.Image.Image, clear: Bool[np.ndarray, 'H W']
) -> PIL.Image.Image:
  """Makes some pixels of an image transparent, and all others opaque.

  Args:
    image: A gray or RGB image. Its own transparent value is ignored.
    clear: Which pixels are transparent.
  """
  alpha = np.where(clear, 0, 255).astype(np.uint8)
  bands = (*image.split(), PIL.Image.fromarray(alpha))
  return PIL.Image.merge({2: 'LA', 4: 'RGBA'}[len(bands)], bands)


def _over_white(image: PIL.Image.Image) -> PIL.Image.Image:
  """Composites an image of at most 8 bits a channel over white."""
  if image.mode == 'La':  # Pillow converts it to nothing else.
    image = image.convert('LA')
  if not image.has_transparency_data:
    return image.convert('RGB')
  image = image.convert('RGBA')
  white = PIL.Image.new('RGBA', image.size, 'white')
  return PIL.Image.alpha_composite(white, image).convert('RGB')


def _narrow(image: PIL.Image.Image) -> PIL.Image.Image:
  """Scales gray of 16 or 32 bits to 8, keeping its transparent value."""
  gray = np.asarray(image)
  narrow = PIL.Image.fromarray(_scale(image, gray))
  key = image.info.get('transparency')
  return narrow if key is None else clear_where(narrow, gray == key)


def _scale(
  image: PIL.Image.Image, gray: Integer[np.ndarray, 'H W']
) -> UInt8[np.ndarray, 'H W']:
  """Gray values of an image, scaled to 8 bits."""
  tags = getattr(image, 'tag_v2', {})
  if tags.get(_BITS) == (12,):
    unit = 16
  # Values of 8 bits are also stored in 32, but Pillow scales those of PPM.
  elif (
    image.mode == 'I' and image.format != 'PPM' and gray.max(initial=0) < 256
  ):
    unit = 1
  else:
    unit = 256
  scaled: Shaped[np.ndarray, 'H W'] = (gray // unit).clip(0, 255)
  scaled = scaled.astype(np.uint8)
  # Pillow inverts the other depths itself.
  if image.mode == 'I;16' and tags.get(_PHOTOMETRIC) == 0:
    scaled = 255 - scaled
  return scaled
