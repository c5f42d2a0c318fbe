"""Colours of every kind of file, against numpy.

Each case writes samples and knows from them alone what must be read: RGB in
0..255 before the image is turned upright.
"""

import colorsys
import dataclasses
import io
import itertools
from collections.abc import Callable

import numpy as np
import PIL.features
import PIL.Image
import pytest

from tests.data import image_files
from unifluid_jax.data import images
from unifluid_jax.errors import UserError

HEIGHT, WIDTH = 5, 7
RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Case:
  """A kind of file: how it is written, and what must be read.

  Attributes:
    name: What the test is called.
    write: The file, for an orientation.
    wanted: Its pixels [H, W, 3], as they lie in the file.
    off: Levels that a pixel may differ.
  """

  name: str
  write: Callable[[int], bytes]
  wanted: np.ndarray
  off: int = 0


def draw(*shape: int, bits: int) -> np.ndarray:
  """Samples that hold the least and the largest."""
  # The same in whatever order tests are run.
  rng = np.random.default_rng((bits, *shape))
  samples = rng.integers(0, 2**bits, (HEIGHT, WIDTH, *shape))
  samples[0, 0], samples[-1, -1], samples[0, -1] = 0, 2**bits - 1, samples[2, 3]
  return samples


def draw_lab() -> np.ndarray:
  """Colours that sRGB has: L in 0..255 for 0..100, a and b signed."""
  rng = np.random.default_rng(0)
  lab = rng.integers(-20, 20, (HEIGHT, WIDTH, 3)) & 255
  lab[..., 0] = rng.integers(100, 200, (HEIGHT, WIDTH))
  return lab


def to_8_bits(samples: np.ndarray, bits: int) -> np.ndarray:
  if bits > 8:
    return samples >> (bits - 8)
  return samples * (255 // (2**bits - 1))


def rgb(grey: np.ndarray) -> np.ndarray:
  return np.repeat(grey[..., None], 3, -1)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  share = alpha[..., None] / 255
  return np.round(pixels * share + 255 * (1 - share)).astype(int)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Upright, pixel by pixel, from where EXIF says rows and columns start."""
  height, width, _ = pixels.shape
  size = (width, height) if orientation > 4 else (height, width)
  upright = np.empty((*size, 3), pixels.dtype)
  for y in range(height):
    for x in range(width):
      bottom, right = height - 1 - y, width - 1 - x
      place = {
        1: (y, x),
        2: (y, right),
        3: (bottom, right),
        4: (bottom, x),
        5: (x, y),
        6: (x, bottom),
        7: (right, bottom),
        8: (right, y),
      }[orientation]
      upright[place] = pixels[y, x]
  return upright


def png_cases() -> list[Case]:
  cases = []

  def add(name, samples, kind, bits, wanted, off=0, **options):
    def write(orientation):
      return image_files.png(samples, kind, bits, orientation, **options)

    cases.append(Case(f'png {name} {bits}', write, wanted, off))

  for bits in (1, 2, 4, 8, 16):
    grey = draw(bits=bits)
    shown = rgb(to_8_bits(grey, bits))
    add('grey', grey, 0, bits, shown)
    for value in {0, int(grey[2, 3]), 2**bits - 1}:
      clear = on_white(shown, np.where(grey == value, 0, 255))
      tag = value.to_bytes(2, 'big')
      add(f'grey tRNS={value}', grey, 0, bits, clear, transparency=tag)
  for bits in (8, 16):
    colour = draw(3, bits=bits)
    # One that has the value's high bytes, and another of its low bytes.
    colour[1, 1] = colour[2, 3] ^ [0, 0, 1]
    shown = to_8_bits(colour, bits)
    add('RGB', colour, 2, bits, shown)
    value = colour[2, 3]
    clear = on_white(shown, np.where((colour == value).all(-1), 0, 255))
    tag = value.astype('>u2').tobytes()
    add('RGB tRNS', colour, 2, bits, clear, transparency=tag)
    both = draw(2, bits=bits)
    eight = to_8_bits(both, bits)
    wanted = on_white(rgb(eight[..., 0]), eight[..., 1])
    add('grey and alpha', both, 4, bits, wanted, off=1)
    four = draw(4, bits=bits)
    eight = to_8_bits(four, bits)
    add('RGBA', four, 6, bits, on_white(eight[..., :3], eight[..., 3]), off=1)
  for bits in (1, 2, 4, 8):
    index = draw(bits=bits)
    colours = RNG.integers(0, 256, (2**bits, 3))
    shown = colours[index]
    add('palette', index, 3, bits, shown, palette=colours)
    some = RNG.integers(0, 256, 2**bits)
    one = np.where(np.arange(2**bits) == index[2, 3], 0, 255)
    for what, alpha in (('one', one), ('some', some), ('first', some[:1])):
      whole = np.concatenate([alpha, np.full(2**bits - len(alpha), 255)])
      tag = bytes(alpha.tolist())
      clear = on_white(shown, whole[index])
      name = f'palette tRNS {what}'
      add(name, index, 3, bits, clear, 1, palette=colours, transparency=tag)
  return cases


def tiff_cases() -> list[Case]:
  cases = []

  def add(name, samples, kind, bits, wanted, off=0, orders='<>', **options):
    for order in orders:

      def write(orientation, order=order):
        return image_files.tiff(
          samples, kind, bits, orientation, order, **options
        )

      cases.append(Case(f'tiff {name} {bits} {order}', write, wanted, off))

  for bits in (1, 2, 4, 8, 16):
    grey = draw(bits=bits)
    shown = rgb(to_8_bits(grey, bits))
    add('grey', grey, 1, bits, shown)
    add('white is 0', grey, 0, bits, 255 - shown, orders='<>'[: 1 + (bits < 9)])
  grey = draw(bits=16)
  add('grey', grey, 1, 32, rgb(to_8_bits(grey, 16)), orders='<')
  add('signed grey', grey, 1, 32, rgb(to_8_bits(grey, 16)), sample_format=2)
  add('8 bits of grey', grey >> 8, 1, 32, rgb(grey >> 8), sample_format=2)
  for bits in (1, 2, 4, 8):
    index = draw(bits=bits)
    colours = RNG.integers(0, 256, (2**bits, 3))
    add('palette', index, 3, bits, colours[index], palette=colours)
  both = draw(2, bits=8)
  wanted = on_white(rgb(both[..., 0]), both[..., 1])
  add('grey and alpha', both, 1, 8, wanted, 1, extra=2)
  wanted = on_white(colours[both[..., 0]], both[..., 1])
  add('palette and alpha', both, 3, 8, wanted, 1, palette=colours, extra=2)
  for bits in (8, 16):
    four = draw(4, bits=bits)
    eight = to_8_bits(four, bits)
    add('RGB', four[..., :3], 2, bits, eight[..., :3])
    add('RGBX', four, 2, bits, eight[..., :3], extra=0)
    wanted = on_white(eight[..., :3], eight[..., 3])
    add('RGBA', four, 2, bits, wanted, 1, extra=2)
    # Of a colour that is multiplied by alpha, white is what is missing.
    alpha = four[..., 3:]
    times = four[..., :3] * alpha // (2**bits - 1)
    samples = np.concatenate([times, alpha], -1)
    wanted = to_8_bits(times + 2**bits - 1 - alpha, bits)
    add('RGBa', samples, 2, bits, wanted, 2, extra=1)
    ink, black = eight[..., :3], eight[..., 3:]
    wanted = np.round((255 - ink) * (255 - black) / 255).astype(int)
    add('CMYK', four, 5, bits, wanted, 1)
  lab = draw_lab()
  add('LAB', lab, 8, 8, lab_to_srgb(lab), off=5)
  return cases


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
  """CIE's and sRGB's formulas; L in 0..255 for 0..100, a and b signed."""
  light = lab[..., 0] * 100 / 255
  a, b = (lab[..., i].astype(np.int8).astype(float) for i in (1, 2))
  y = (light + 16) / 116
  f = np.stack([y + a / 500, y, y - b / 200], -1)
  xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
  xyz = xyz * [0.9642, 1, 0.8249]  # white of D50
  linear = xyz @ np.transpose(
    [
      [3.1338561, -1.6168667, -0.4906146],
      [-0.9787684, 1.9161415, 0.0334540],
      [0.0719453, -0.2289914, 1.4052427],
    ]
  )
  linear = linear.clip(0, 1)
  low = linear <= 0.0031308
  curve = np.where(low, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
  return np.round(curve * 255).astype(int)


def saved(image: PIL.Image.Image, form: str, **options) -> bytes:
  data = io.BytesIO()
  image.save(data, form, **options)
  return data.getvalue()


def lossy_cases() -> list[Case]:
  """JPEG and AVIF: squares of one colour, which they keep to a few levels."""
  cases = []

  def add(name, mode, samples, wanted, off, form='JPEG'):
    large = samples.repeat(16, 0).repeat(16, 1).astype(np.uint8)
    # An array of four channels would be taken for RGBA.
    size = large.shape[1::-1]
    image = PIL.Image.frombytes(mode, size, large.tobytes())

    def write(orientation):
      exif = image_files.exif(orientation)
      if form == 'JPEG':
        exif = b'Exif\0\0' + exif
      return saved(image, form, quality=100, subsampling='4:4:4', exif=exif)

    wanted = wanted.repeat(16, 0).repeat(16, 1)
    cases.append(Case(f'{form.lower()} {name}', write, wanted, off))

  grey, colour, four = draw(bits=8), draw(3, bits=8), draw(4, bits=8)
  add('grey', 'L', grey, rgb(grey), 2)
  add('RGB', 'RGB', colour, colour, 3)
  ink, black = four[..., :3], four[..., 3:]
  wanted = np.round((255 - ink) * (255 - black) / 255).astype(int)
  add('CMYK', 'CMYK', four, wanted, 4)
  if PIL.features.check('avif'):
    for mode, samples in (('RGB', colour), ('RGBA', four)):
      pixels = samples[..., :3]
      if mode == 'RGBA':
        pixels = on_white(pixels, samples[..., 3])
      add(mode, mode, samples, pixels, 8, 'AVIF')
  return cases


def webp_cases() -> list[Case]:
  """WebP without loss."""
  four = draw(4, bits=8).astype(np.uint8)
  four[1, 1:4, 3] = 0
  cases = []
  for mode, wanted in (
    ('RGB', four[..., :3].astype(int)),
    ('RGBA', on_white(four[..., :3], four[..., 3])),
  ):
    image = PIL.Image.fromarray(four).convert(mode)

    def write(orientation, image=image):
      exif = image_files.exif(orientation)
      return saved(image, 'WEBP', lossless=True, exact=True, exif=exif)

    cases.append(Case(f'webp {mode}', write, wanted, 1))
  return cases


def cases_without_exif() -> list[Case]:
  """GIF, BMP and PPM."""
  cases = []

  def add(name, image, form, wanted, off=0, **options):
    def write(_):
      return saved(image, form, **options)

    cases.append(Case(f'{form.lower()} {name}', write, wanted, off))

  grey, colour, four = (draw(*n, bits=8) for n in ((), (3,), (4,)))
  ones = draw(bits=1)
  as_image = {
    '1': PIL.Image.fromarray(ones.astype(bool)),
    'L': PIL.Image.fromarray(grey.astype(np.uint8)),
    'RGB': PIL.Image.fromarray(colour.astype(np.uint8)),
    'RGBA': PIL.Image.fromarray(four.astype(np.uint8)),
  }
  wanted = {'1': rgb(ones * 255), 'L': rgb(grey), 'RGB': colour}
  for mode, form in itertools.product(wanted, ('BMP', 'PPM')):
    add(mode, as_image[mode], form, wanted[mode])
  add('1', as_image['1'], 'GIF', wanted['1'])
  add('L', as_image['L'], 'GIF', wanted['L'])
  clear = on_white(rgb(grey), np.where(grey == grey[2, 3], 0, 255))
  value = int(grey[2, 3])
  add('transparent', as_image['L'], 'GIF', clear, transparency=value)
  # Of 32 bits, 8 are alpha only where a mask says so, which Pillow's do not.
  add('RGBX', as_image['RGBA'], 'BMP', four[..., :3])
  on = on_white(four[..., :3], four[..., 3])
  data = image_files.bmp(four)
  cases.append(Case('bmp RGBA', lambda _, data=data: data, on, 1))
  palette = PIL.Image.fromarray(grey.astype(np.uint8)).convert('P')
  colours = RNG.integers(0, 256, (256, 3))
  palette.putpalette(bytes(colours.ravel().tolist()))
  add('palette', palette, 'BMP', colours[grey])
  add('palette', palette, 'GIF', colours[grey])
  clear = on_white(colours[grey], np.where(grey == value, 0, 255))
  add('palette transparent', palette, 'GIF', clear, transparency=value)
  # All dark: nothing but the format tells that these have 16 bits.
  for name, deep in (('bright', draw(bits=16)), ('dark', grey)):
    data = b'P5 7 5 65535\n' + deep.astype('>u2').tobytes()
    cases.append(
      Case(f'ppm {name} 16', lambda _, data=data: data, rgb(deep >> 8))
    )
  deep = draw(3, bits=16)
  data = b'P6 7 5 65535\n' + deep.astype('>u2').tobytes()
  cases.append(Case('ppm RGB 16', lambda _: data, deep >> 8, 1))
  return cases


CASES = [*png_cases(), *tiff_cases(), *lossy_cases(), *webp_cases()]
WITHOUT_EXIF = cases_without_exif()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_every_kind_of_file(case, orientation):
  decoded = images.decode(case.write(orientation), 'x')
  wanted = turn(case.wanted, orientation)
  assert decoded.dtype == np.uint8
  np.testing.assert_allclose(decoded, wanted, rtol=0, atol=case.off)
  assert decoded.flags.c_contiguous


@pytest.mark.parametrize('case', WITHOUT_EXIF, ids=lambda case: case.name)
def test_every_kind_of_file_without_exif(case):
  decoded = images.decode(case.write(1), 'x')
  np.testing.assert_allclose(decoded, case.wanted, rtol=0, atol=case.off)


def test_grey_of_12_bits():
  grey = draw(bits=12)
  grey = grey[:, :6]  # whole bytes: two samples are three
  bits = (grey.reshape(5, -1, 1) >> np.arange(12)[::-1]) & 1
  data = image_files.tiff(grey, 1, 12, 1, strip=np.packbits(bits).tobytes())
  np.testing.assert_array_equal(images.decode(data, 'x'), rgb(grey >> 4))


MODES = {
  '1': 1, 'L': 1, 'LA': 2, 'La': 2, 'P': 1, 'PA': 2, 'RGB': 3, 'RGBA': 4,
  'RGBa': 4, 'RGBX': 4, 'CMYK': 4, 'YCbCr': 3, 'LAB': 3, 'HSV': 3, 'I': 1,
  'I;16': 1, 'I;16B': 1,
}  # fmt: skip
"""Channels of each of Pillow's modes but F."""


@pytest.mark.parametrize('mode', MODES)
def test_every_mode(mode):
  """As Pillow holds it, also those that no file of ours is opened as."""
  samples = draw(MODES[mode], bits=8)
  first, alpha = samples[..., 0], samples[..., -1]
  colours = np.random.default_rng(1).integers(0, 256, (256, 3))
  kind = {'I': '<i4', 'I;16': '<u2', 'I;16B': '>u2'}.get(mode, 'u1')
  unit = 256 if mode[0] == 'I' else 1  # of which a grey of 8 bits is
  if mode == '1':
    samples = first = samples % 2 * 255
    first = first[..., 0]
    data = np.packbits(first > 0, axis=1).tobytes()
  else:
    if mode in ('La', 'RGBa'):
      samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // 255
    if mode == 'LAB':
      samples = draw_lab()
    data = (samples * unit).astype(kind).tobytes()
  image = PIL.Image.frombytes(mode, (WIDTH, HEIGHT), data)
  if mode in ('P', 'PA'):
    image.putpalette(bytes(colours.ravel().tolist()))
  match mode:
    case '1' | 'L' | 'I' | 'I;16' | 'I;16B':
      wanted = rgb(first)
    case 'LA':
      wanted = on_white(rgb(first), alpha)
    case 'P':
      wanted = colours[first]
    case 'PA':
      wanted = on_white(colours[first], alpha)
    case 'RGB' | 'RGBX':
      wanted = samples[..., :3]
    case 'RGBA':
      wanted = on_white(samples[..., :3], alpha)
    case 'La' | 'RGBa':
      wanted = samples[..., :-1] + 255 - alpha[..., None]
      wanted = np.broadcast_to(wanted, (HEIGHT, WIDTH, 3))
    case 'CMYK':
      rest = 255 - samples
      wanted = np.round(rest[..., :3] * rest[..., 3:] / 255)
    case 'YCbCr':
      y, blue, red = np.moveaxis(samples - [0, 128, 128], -1, 0)
      green = y - 0.344136 * blue - 0.714136 * red
      wanted = np.stack([y + 1.402 * red, green, y + 1.772 * blue], -1)
      wanted = np.round(wanted.clip(0, 255))
    case 'LAB':
      wanted = lab_to_srgb(samples)
    case 'HSV':
      triples = samples.reshape(-1, 3) / 255
      wanted = [colorsys.hsv_to_rgb(*triple) for triple in triples.tolist()]
      wanted = np.round(np.array(wanted) * 255).reshape(HEIGHT, WIDTH, 3)
  decoded = images.to_rgb(image)
  off = 0 if mode in ('1', 'L', 'P', 'RGB', 'RGBX') or unit > 1 else 2
  off = 5 if mode == 'LAB' else off
  np.testing.assert_allclose(decoded, wanted, rtol=0, atol=off)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_fractions_are_refused(orientation):
  bits = draw(bits=16).astype(np.float32).view(np.uint32)
  data = image_files.tiff(bits, 1, 32, orientation, sample_format=3)
  with pytest.raises(UserError, match='x holds fractions'):
    images.decode(data, 'x')
