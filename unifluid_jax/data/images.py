"""Image files to square RGB arrays."""

import io
import re
import struct
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
from jaxtyping import Bool, UInt8

from unifluid_jax.data import rgb
from unifluid_jax.utils.errors import UserError

MAX_PIXELS = 40_000_000
"""Pixels that an image may have unless the caller allows more."""

PILLOW_PIXELS = 178_956_970
"""Pixels above which Pillow opens no image."""

FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF', 'PPM')
"""Formats that are read. Pillow's other decoders never see a file."""

_MAX_SCANS = 100  # Of a JPEG; progressive ones have about ten.
_ORIENTATION, _PHOTOMETRIC = 0x0112, 262  # Tags of EXIF and TIFF.
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_YCBCR = 6

# `decode` checks its own limit.
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)


def decode(
  data: bytes,
  name: str,
  least: int = 0,
  max_pixels: int = MAX_PIXELS,
  remedy: str = 'scale it down',
) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes the first frame of an image file, upright and over white.

  Args:
    data: The content of the file.
    name: What error messages call the file.
    least: Pixels that each side must keep. A JPEG is decoded at a half, a
      quarter or an eighth of its size, the smallest that has as many, which
      takes less time; 0 for its own size.
    max_pixels: Pixels that the file's header may announce.
    remedy: What the error message advises for a larger image.

  Raises:
    UserError: The file is damaged or of another format, is larger than
      `max_pixels`, or its values have no known white.
  """
  try:
    with PIL.Image.open(io.BytesIO(data), formats=formats()) as image:
      pixels = _pixels(image)
      if pixels > max_pixels:
        raise _too_large(name, pixels, max_pixels, remedy)
      _check_content(image, data, name)
      if least:
        image.draft(None, (least, least))
      clear = _transparent(image, data)
      image.load()
      converted = rgb.to_rgb(
        image if clear is None else rgb.clear_where(image, clear)
      )
      return _turn(converted, image.getexif().get(_ORIENTATION))
  except PIL.Image.DecompressionBombError as error:
    pixels = int(re.findall(r'\d+', str(error))[0])
    raise _too_large(name, pixels, max_pixels, remedy) from None
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
    raise UserError(
      f'{name} is not a readable image: it is damaged, or not of the '
      f'formats {", ".join(formats())}'
    ) from None


def formats() -> list[str]:
  """The members of FORMATS that this Pillow can read."""
  PIL.Image.init()
  return [name for name in FORMATS if name in PIL.Image.OPEN]


def _tiff_tags(image: PIL.Image.Image) -> Mapping[int, Any]:
  """The tags of a TIFF; none of another format."""
  return getattr(image, 'tag_v2', {})


def _pixels(image: PIL.Image.Image) -> int:
  """Pixels that decoding an image takes memory for, from its header."""
  width, height = image.size
  tags = _tiff_tags(image)
  # A TIFF is decoded tile by tile, and a tile may be larger than the image.
  tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
  return max(width * height, tile)


def _too_large(
  name: str, pixels: int, max_pixels: int, remedy: str
) -> UserError:
  return UserError(
    f'{name} has {pixels:,} pixels, more than the limit of {max_pixels:,}; '
    f'{remedy}'
  )


def _check_content(image: PIL.Image.Image, data: bytes, name: str) -> None:
  """Rejects what Pillow decodes wrongly, or takes hours to decode.

  Raises:
    UserError: With the file and what is wrong with it.
  """
  if image.mode == 'F':
    raise UserError(
      f'{name} holds fractions without a white level; save it with 8 bits'
    )
  # Within the data of a scan, 0xFF is always followed by 0.
  if image.format in ('JPEG', 'MPO') and data.count(b'\xff\xda') > _MAX_SCANS:
    raise UserError(
      f'{name} is a JPEG of more than {_MAX_SCANS} scans; save it again'
    )
  # Pillow takes these three bytes a pixel for four.
  is_raw = image.format == 'TIFF' and image.info.get('compression') == 'raw'
  if is_raw and _tiff_tags(image).get(_PHOTOMETRIC) == _YCBCR:
    raise UserError(
      f'{name} is a TIFF of YCbCr values without compression; save it as RGB'
    )


def _transparent(
  image: PIL.ImageFile.ImageFile, data: bytes
) -> np.ndarray | None:
  """Which pixels of a PNG [H W] have its transparent value.

  Pillow compares that value with pixels that it has scaled to 8 bits. So the
  value is scaled alike, or if that loses bits, the pixels are compared here.

  Args:
    image: The image, not yet loaded; its transparent value may be changed.
    data: The content of the file.

  Returns:
    A mask if Pillow cannot find them itself, else None.
  """
  key = image.info.get('transparency')
  if image.format != 'PNG' or key is None or isinstance(key, bytes):
    return None
  match image.tile[0].args:
    case 'L;2':
      image.info['transparency'] = (key & 3) * 85
    case 'L;4':
      image.info['transparency'] = (key & 15) * 17
    case 'L':
      image.info['transparency'] = key & 255
    case 'RGB':
      image.info['transparency'] = tuple(value & 255 for value in key)
    case 'RGB;16B':
      return _has_value(data, key)
  return None


def _has_value(data: bytes, key: tuple[int, int, int]) -> np.ndarray:
  """Which pixels [H W] of a PNG of 16-bit RGB have a value in all bits."""
  found = []
  # Pillow keeps one byte of a channel: the first of these reads the high one.
  for rawmode, shift in (('RGB;16B', 8), ('RGB;16L', 0)):
    with PIL.Image.open(io.BytesIO(data), formats=['PNG']) as image:
      image.tile = [tile._replace(args=rawmode) for tile in image.tile]
      wanted = [value >> shift & 255 for value in key]
      found.append((np.asarray(image) == wanted).all(-1))
  return found[0] & found[1]


def _turn(
  pixels: UInt8[np.ndarray, 'h w 3'], orientation: object
) -> UInt8[np.ndarray, 'H W 3']:
  """Turns pixels upright, as EXIF's orientation 1..8 says."""
  if orientation in (5, 6, 7, 8):
    pixels = pixels.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  return np.ascontiguousarray(pixels)


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


def fit_mask(
  mask: Bool[np.ndarray, 'H W'], size: int
) -> Bool[np.ndarray, '{size} {size}']:
  """Cuts out and resizes as `fit`: True where any part of a pixel is."""
  if mask.shape == (size, size):
    return mask
  square = PIL.ImageOps.fit(
    PIL.Image.fromarray(mask.astype(np.uint8) * 255),
    (size, size),
    PIL.Image.Resampling.BILINEAR,
  )
  return np.asarray(square) > 0
