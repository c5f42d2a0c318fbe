"""Image files to square RGB arrays."""

import io
import re
import struct

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageCms
import PIL.ImageFile
import PIL.ImageOps
from jaxtyping import Bool, Shaped, UInt8

from unifluid_jax.errors import UserError

MAX_PIXELS = 40_000_000
"""Pixels that an image may have by default."""

FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF', 'PPM')
"""Formats that are read, by Pillow's names."""

# Greys of fewer than 8 bits, which Pillow scales to 0..255 in mode L: the
# factor, by Pillow's name of their layout.
_GREY_SCALES = {'L;2': 85, 'L;4': 17}

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags


def decode(
  data: bytes, name: str, least: int = 0, most: int = MAX_PIXELS
) -> UInt8[np.ndarray, 'H W 3']:
  """Reads an image file in one of FORMATS, upright and on white.

  Args:
    data: The content of the file.
    name: What the error message calls it.
    least: Pixels that a side must have at least. Of a JPEG, which is read at a
      half, a quarter or an eighth of its size in less time, the smallest of
      these with as many is given; 0 for its own size.
    most: Pixels that the file's image may have; checked before it is decoded.

  Raises:
    UserError: If Pillow cannot read it, it has too many pixels, or its values
      have no known white.
  """
  try:
    with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
      _check_header(image, name, most)
      if least:
        image.draft(None, (least, least))
      pixels = to_rgb(_load(image, data))
      # Loading comes first: it turns a TIFF, and finds a PNG's late EXIF.
      return _turn(pixels, image.getexif().get(PIL.ExifTags.Base.Orientation))
  except PIL.Image.DecompressionBombError as error:
    (count,) = re.findall(r'\((\d+) pixels\)', str(error))
    raise UserError(_too_many(name, f'{int(count):,}', most)) from None
  except PIL.UnidentifiedImageError:
    raise UserError(
      f'{name} is no image that Pillow can read as {", ".join(FORMATS[:-1])} '
      f'or {FORMATS[-1]}; save it as one of these'
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
  """Pixels of an image of any mode but F; transparent ones become white."""
  if image.mode.startswith('I'):
    image = _grey_of_8_bits(image)
  if image.mode == 'LAB':
    image = _lab_to_rgb(image)
  if image.mode in ('La', 'RGBa'):  # multiplied by alpha
    image = image.convert(image.mode.upper())
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = PIL.Image.new('RGBA', image.size, 'white')
    image = PIL.Image.alpha_composite(white, image)
  # Converting to the same mode would copy.
  return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def _check_header(image: PIL.Image.Image, name: str, most: int) -> None:
  """Refuses what is too large or has no known white, before it is decoded."""
  width, height = image.size
  if width * height > most:
    count = f'{width:,} x {height:,} = {width * height:,}'
    raise UserError(_too_many(name, count, most))
  if image.mode == 'F':
    raise UserError(
      f'{name} holds fractions, of which it does not tell what is white; '
      'save it with 8 bits'
    )


def _too_many(name: str, count: str, most: int) -> str:
  return (
    f'{name} has {count} pixels; the limit is {most:,}: scale it down, or '
    'raise data.max_pixels in the config'
  )


def _load(image: PIL.ImageFile.ImageFile, data: bytes) -> PIL.Image.Image:
  """Decodes an image whose transparent value is as its pixels are.

  A PNG gives the value with the bits of the file. Pillow scales pixels to 8
  bits, and leaves the value alone.
  """
  value = image.info.get('transparency')
  layout = image.tile[0][3] if image.format == 'PNG' and image.tile else None
  image.load()
  if value is None or layout is None:
    return image
  if layout in _GREY_SCALES:
    scale = _GREY_SCALES[layout]
    # The bits above the file's depth have no meaning.
    image.info['transparency'] = (value & 255 // scale) * scale
  elif layout == 'L':
    image.info['transparency'] = value & 255
  elif layout == 'RGB':
    image.info['transparency'] = tuple(part & 255 for part in value)
  elif layout == 'RGB;16B':
    is_value = _equals_in_16_bits(image, data, value)
    rgb = image.copy()
    del rgb.info['transparency']
    rgb.putalpha(_opaque_except(is_value))
    return rgb
  return image


def _equals_in_16_bits(
  image: PIL.Image.Image, data: bytes, value: tuple[int, int, int]
) -> Bool[np.ndarray, 'H W']:
  """Where a PNG of 16 bits a channel has a value; Pillow keeps the high 8."""
  with PIL.Image.open(io.BytesIO(data), formats=['PNG']) as again:
    # Read as little-endian, the high byte is the file's low byte.
    again.tile = [tile._replace(args='RGB;16L') for tile in again.tile]
    low = np.asarray(again)
  high_value, low_value = np.divmod(np.array(value), 256)
  return ((np.asarray(image) == high_value) & (low == low_value)).all(-1)


def _opaque_except(mask: Bool[np.ndarray, 'H W']) -> PIL.Image.Image:
  return PIL.Image.fromarray(np.where(mask, 0, 255).astype(np.uint8))


def _grey_of_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
  """A grey of 16 or 32 bits, which Pillow would clip, as L or LA."""
  grey = np.asarray(image)
  tags = getattr(image, 'tag_v2', {})
  value = image.info.get('transparency')
  transparent = None if value is None else grey == value
  unit = 256
  if image.mode == 'I' and image.format != 'PPM' and grey.max() < 256:
    unit = 1  # 8 bits in 32
  elif tags.get(_BITS_PER_SAMPLE) == (12,):
    unit = 16
  grey = (grey // unit).clip(0, 255).astype(np.uint8)
  if tags.get(_PHOTOMETRIC) == 0:  # 0 is white, which Pillow overlooks here
    grey = 255 - grey
  result = PIL.Image.fromarray(grey)
  if transparent is not None:
    result.putalpha(_opaque_except(transparent))
  return result


def _lab_to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  """CIE L*a*b* with the white of D50 to sRGB."""
  lab = PIL.ImageCms.createProfile('LAB')
  srgb = PIL.ImageCms.createProfile('sRGB')
  converted = PIL.ImageCms.profileToProfile(image, lab, srgb, outputMode='RGB')
  assert converted is not None  # as it is not done in place
  return converted


def _turn(
  pixels: Shaped[np.ndarray, 'h w 3'], orientation: int | None
) -> Shaped[np.ndarray, 'H W 3']:
  """Turns pixels upright from an orientation that EXIF defines, 1..8."""
  if orientation in (5, 6, 7, 8):
    pixels = pixels.transpose(1, 0, 2)
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
