"""Image files to square RGB arrays."""

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from unifluid_jax.errors import UserError


def decode(
  data: bytes, name: str, least: int = 0
) -> UInt8[np.ndarray, 'H W 3']:
  """Reads an image file (PNG, JPEG, WebP, ...), upright and on white.

  Args:
    data: The content of the file.
    name: What the error message calls it.
    least: Pixels that a side must have at least. Of a JPEG, which is read at a
      half, a quarter or an eighth of its size in less time, the smallest of
      these with as many is given; 0 for its own size.

  Raises:
    UserError: If Pillow cannot read it, or its values have no known white.
  """
  try:
    with PIL.Image.open(io.BytesIO(data)) as image:
      if image.mode == 'F':
        raise UserError(
          f'{name} holds fractions, of which it does not tell what is white; '
          'save it with 8 bits'
        )
      if least:
        image.draft(None, (least, least))
      return to_rgb(PIL.ImageOps.exif_transpose(image))
  except PIL.Image.DecompressionBombError:
    most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
    raise UserError(
      f'{name} has more than {most:,} pixels; scale it down'
    ) from None
  # What Pillow's decoders raise on broken files.
  except (
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
  ):
    raise UserError(f'{name} is no image that Pillow can read') from None


def to_rgb(image: PIL.Image.Image) -> UInt8[np.ndarray, 'H W 3']:
  """Pixels of an image of any mode; what is transparent becomes white."""
  if image.mode.startswith('I'):  # 16 bits of grey, which Pillow would clip
    grey = np.asarray(image)
    # In 32 bits there may be 8 as well.
    unit = 1 if image.mode == 'I' and grey.max() < 256 else 256
    image = PIL.Image.fromarray((grey // unit).clip(0, 255).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = PIL.Image.new('RGBA', image.size, 'white')
    image = PIL.Image.alpha_composite(white, image)
  return np.asarray(image.convert('RGB'))


def fit(
  image: UInt8[np.ndarray, 'H W 3'], size: int
) -> UInt8[np.ndarray, '{size} {size} 3']:
  """Cuts out the central square and resizes it, bicubic and antialiased."""
  height, width, _ = image.shape
  if height == width == size:
    return image
  square = PIL.ImageOps.fit(
    PIL.Image.fromarray(image), (size, size), PIL.Image.Resampling.BICUBIC
  )
  return np.asarray(square)
