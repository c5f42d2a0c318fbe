"""Every mode, transparency, bit depth and orientation that files can hold.

The oracle is computed here from the samples that are written, with neither
Pillow's conversions nor ours.
"""

import io
from collections.abc import Callable, Iterable

import numpy as np
import PIL.Image
import pytest

from tests.data import image_files
from unifluid_jax.data import images
from unifluid_jax.data import rgb as rgb_lib
from unifluid_jax.utils.errors import UserError

HEIGHT, WIDTH = 3, 5
RNG = np.random.default_rng(0)
PALETTE = RNG.integers(0, 256, (256, 3))
GRAYS = bytes(np.arange(256, dtype=np.uint8).repeat(3))
ALPHAS = RNG.integers(0, 256, 256)


def samples(bits: int, channels: int) -> np.ndarray:
  """Random samples; the first two pixels are alike, and each has an extreme."""
  rng = np.random.default_rng([bits, channels])
  values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, channels))
  values[0, 0] = values[0, 1]
  values[1, 0], values[1, 1] = 0, 2**bits - 1
  return values


def narrow(values: np.ndarray, bits: int) -> np.ndarray:
  """Samples as numbers of 8 bits."""
  return values >> 8 if bits == 16 else values * 255 // (2**bits - 1)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  alpha = alpha[..., None] / 255
  return rgb * alpha + 255 * (1 - alpha)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Puts stored pixels where EXIF says that the 0th row and column are."""
  height, width = pixels.shape[:2]
  turned = np.zeros(
    (height, width, 3) if orientation < 5 else (width, height, 3)
  )
  for row in range(height):
    for column in range(width):
      bottom, right = height - 1 - row, width - 1 - column
      place = {
        1: (row, column),  # the 0th row is the top, the 0th column the left
        2: (row, right),  # top, right
        3: (bottom, right),  # bottom, right
        4: (bottom, column),  # bottom, left
        5: (column, row),  # left, top
        6: (column, bottom),  # right, top
        7: (right, bottom),  # right, bottom
        8: (right, row),  # left, bottom
      }[orientation]
      turned[place] = pixels[row, column]
  return turned


def gray(values: np.ndarray) -> np.ndarray:
  return np.repeat(values[..., :1], 3, -1)


def check(
  make: Callable[[int], bytes],
  stored: np.ndarray,
  most: float,
  orientations: Iterable[int] = range(1, 9),
):
  """Decodes files made for orientations; levels may differ by `most`."""
  for orientation in orientations:
    decoded = images.decode(make(orientation), 'x')
    expected = upright(stored, orientation)
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(
      decoded.astype(float), expected, atol=most, err_msg=str(orientation)
    )


def as_16_bits(values: np.ndarray) -> bytes:
  return values.astype('>u2').tobytes()


@pytest.mark.parametrize('has_key', [False, True])
@pytest.mark.parametrize(
  ('color', 'bits'), [*((0, b) for b in (1, 2, 4, 8, 16)), (2, 8), (2, 16)]
)
def test_png_with_a_transparent_value(color, bits, has_key):
  pixels = samples(bits, 3 if color else 1)
  key = pixels[0, 0]
  # Alike in the high byte only, so it is opaque.
  pixels[2, 0] = key ^ 1
  rgb = narrow(pixels, bits) if color else gray(narrow(pixels, bits))
  alpha = np.full(pixels.shape[:2], 255)
  if has_key:
    alpha[(pixels == key).all(-1)] = 0
  transparent = as_16_bits(key) if has_key else b''
  check(
    lambda orientation: image_files.png(
      pixels,
      bits,
      color,
      transparent=transparent,
      orientation=orientation,
    ),
    over_white(rgb, alpha),
    0,
  )


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('color', [4, 6])
def test_png_with_alpha(color, bits):
  pixels = samples(bits, color // 2 if color == 4 else 4)
  small = narrow(pixels, bits)
  rgb = small[..., :3] if color == 6 else gray(small)
  check(
    lambda orientation: image_files.png(
      pixels, bits, color, orientation=orientation
    ),
    over_white(rgb, small[..., -1]),
    0.51,
  )


@pytest.mark.parametrize('transparency', ['none', 'one', 'all', 'some'])
@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_png_with_a_palette(bits, transparency):
  pixels = samples(bits, 1)
  count = 2**bits
  alphas = np.full(count, 255)
  match transparency:
    case 'one':
      alphas[pixels[0, 0]] = 0
    case 'all':
      alphas = ALPHAS[:count]
    case 'some':  # The entries that are not listed are opaque.
      alphas[: count // 2] = ALPHAS[: count // 2]
  listed = {'none': 0, 'some': count // 2}.get(transparency, count)
  check(
    lambda orientation: image_files.png(
      pixels,
      bits,
      3,
      PALETTE[:count].astype(np.uint8).tobytes(),
      alphas[:listed].astype(np.uint8).tobytes(),
      orientation,
    ),
    over_white(PALETTE[pixels[..., 0]], alphas[pixels[..., 0]]),
    0.51,
  )


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize(
  ('photometric', 'bits', 'channels', 'extra'),
  [
    *((p, bits, 1, None) for p in (0, 1) for bits in (1, 2, 4, 8, 16)),
    (1, 8, 2, 2),
    *((2, bits, 3, None) for bits in (8, 16)),
    *((2, bits, 4, extra) for bits in (8, 16) for extra in (0, 1, 2)),
    *((3, bits, 1, None) for bits in (1, 2, 4, 8)),
    *((3, 8, 2, extra) for extra in (0, 2)),
    *((5, bits, 4, None) for bits in (8, 16)),
  ],
)
def test_tiff(photometric, bits, channels, extra, order):
  pixels = samples(bits, channels)
  if extra == 1:  # Colors that are multiplied by alpha are at most as much.
    pixels[..., :3] = pixels[..., :3] * pixels[..., 3:] // (2**bits - 1)
  count = 2**bits
  palette = (PALETTE[:count] * 257).T.ravel().tolist()

  def make(orientation: int) -> bytes:
    return image_files.tiff(
      pixels,
      bits,
      photometric,
      order,
      orientation,
      extra,
      palette if photometric == 3 else (),
    )

  if (photometric, bits, order) == (0, 16, '>'):  # Pillow does not know it.
    with pytest.raises(UserError, match='x is not a readable image'):
      images.decode(make(1), 'x')
    return
  small = narrow(pixels, bits)
  match photometric:
    case 0:
      rgb = 255 - gray(small)
    case 1:
      rgb = gray(small)
    case 2:
      rgb = small[..., :3]
    case 3:
      rgb = PALETTE[pixels[..., 0]]
    case 5:
      rgb = _cmyk(small)
  if extra == 2:
    rgb = over_white(rgb, small[..., -1])
  elif extra == 1:
    rgb = rgb + (255 - small[..., -1:])
  check(make, rgb, 1.01 if extra == 1 else 0.51)


@pytest.mark.parametrize('bits', [1, 3, 8, 10, 16])
@pytest.mark.parametrize('channels', [1, 3])
def test_ppm(bits, channels):
  most = 2**bits - 1
  pixels = samples(bits, channels)
  header = f'P{6 if channels == 3 else 5} {WIDTH} {HEIGHT} {most}\n'.encode()
  data = header + pixels.astype('>u2' if bits > 8 else np.uint8).tobytes()
  expected = pixels / most * 255
  # 16 bits of gray are cut, not rounded.
  check(lambda _: data, expected if channels == 3 else gray(expected), 1, [1])


def test_dark_ppm_of_16_bits():
  data = b'P5 2 1 65535\n' + np.array([0, 255], '>u2').tobytes()
  np.testing.assert_array_equal(images.decode(data, 'x'), np.zeros((1, 2, 3)))


def test_pbm():
  pixels = samples(1, 1)
  data = f'P4 {WIDTH} {HEIGHT}\n'.encode()
  data += image_files.pack(pixels[..., 0], 1)
  check(lambda _: data, 255 - 255 * gray(pixels), 0, [1])  # 1 is black.


def save(image: PIL.Image.Image, form: str, **options) -> bytes:
  data = io.BytesIO()
  image.save(data, form, **options)
  return data.getvalue()


def exif(orientation: int) -> PIL.Image.Exif:
  made = PIL.Image.Exif()
  made[0x0112] = orientation
  return made


@pytest.mark.parametrize('channels', [3, 4])
@pytest.mark.parametrize('form', ['WEBP', 'AVIF'])
def test_webp_and_avif(form, channels):
  # Even blocks of one color survive AVIF.
  small = samples(8, channels)
  pixels = small.repeat(16, 0).repeat(16, 1).astype(np.uint8)
  options = {
    'WEBP': {'lossless': True, 'exact': True},
    'AVIF': {'quality': 100, 'subsampling': '4:4:4'},
  }[form]
  image = PIL.Image.fromarray(pixels)
  rgb = pixels[..., :3]
  if channels == 4:
    rgb = over_white(rgb, pixels[..., 3])
  check(
    lambda orientation: save(image, form, exif=exif(orientation), **options),
    rgb,
    0.51 if form == 'WEBP' else 4,
    # AVIF is slow to write.
    range(1, 9) if form == 'WEBP' else [1, 5, 8],
  )


@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
def test_jpeg(mode):
  channels = len(mode)
  pixels = samples(8, channels).repeat(16, 0).repeat(16, 1).astype(np.uint8)
  image = PIL.Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
  values = pixels.astype(float)
  rgb = (
    _cmyk(values)
    if mode == 'CMYK'
    else values
    if channels == 3
    else gray(values)
  )
  check(
    lambda orientation: save(
      image, 'JPEG', quality=100, subsampling=0, exif=exif(orientation)
    ),
    rgb,
    4,
  )


@pytest.mark.parametrize('has_key', [False, True])
def test_gif(has_key):
  pixels = samples(8, 1)[..., 0]
  image = PIL.Image.fromarray(pixels.astype(np.uint8), 'P')
  image.putpalette(PALETTE.astype(np.uint8).tobytes())
  key = int(pixels[0, 0])
  data = save(image, 'GIF', **({'transparency': key} if has_key else {}))
  alpha = np.where(has_key & (pixels == key), 0, 255)
  check(lambda _: data, over_white(PALETTE[pixels], alpha), 0, [1])


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA'])
def test_bmp(mode):
  pixels = samples(1 if mode == '1' else 8, 1 if len(mode) < 3 else len(mode))
  values = pixels.astype(np.uint8) * (255 if mode == '1' else 1)
  image = PIL.Image.fromarray(values.squeeze(), 'L' if mode == '1' else None)
  rgb = {3: values, 4: values[..., :3]}.get(len(mode), gray(values))
  if mode == 'P':
    image = PIL.Image.fromarray(values.squeeze(), 'P')
    image.putpalette(PALETTE.astype(np.uint8).tobytes())
    rgb = PALETTE[values[..., 0]]
  data = save(image.convert(mode), 'BMP')  # Pillow writes no alpha.
  check(lambda _: data, rgb, 0, [1])


def _cmyk(v: np.ndarray) -> np.ndarray:
  return (255 - v[..., :3]) * (255 - v[..., 3:]) / 255


def _ycbcr(v: np.ndarray) -> np.ndarray:
  luma, blue, red = v[..., 0], v[..., 1] - 128, v[..., 2] - 128
  green = luma - 0.344136 * blue - 0.714136 * red
  return np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], -1)


def _hsv(v: np.ndarray) -> np.ndarray:
  sector, value = v[..., 0] * 6 / 255, v[..., 2]
  offsets = (sector[..., None] + [5, 3, 1]) % 6
  fall = np.minimum(offsets, 4 - offsets).clip(0, 1)
  return value[..., None] * (1 - v[..., 1:2] / 255 * fall)


def _lab(v: np.ndarray) -> np.ndarray:
  """CIELAB under D50, with 128 for an a or b of 0, to sRGB."""
  y = (v[..., 0] * 100 / 255 + 16) / 116
  a, b = v[..., 1] - 128, v[..., 2] - 128
  f = np.stack([y + a / 500, y, y - b / 200], -1)
  xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2)
  xyz = xyz * [0.96422, 1, 0.82521]
  matrix = [
    [3.1338561, -1.6168667, -0.4906146],
    [-0.9787684, 1.9161415, 0.0334540],
    [0.0719453, -0.2289914, 1.4052427],
  ]
  linear = (xyz @ np.transpose(matrix)).clip(0, 1)
  curve = 1.055 * linear ** (1 / 2.4) - 0.055
  return 255 * np.where(linear < 0.0031308, 12.92 * linear, curve)


MODES = {
  'LA': lambda v: over_white(gray(v), v[..., 1]),
  'La': lambda v: gray(v) + 255 - v[..., 1:],
  'PA': lambda v: over_white(gray(v), v[..., 1]),  # Its palette is gray.
  'RGB': lambda v: v,
  'RGBA': lambda v: over_white(v[..., :3], v[..., 3]),
  'RGBa': lambda v: v[..., :3] + 255 - v[..., 3:],
  'RGBX': lambda v: v[..., :3],
  'CMYK': _cmyk,
  'YCbCr': _ycbcr,
  'HSV': _hsv,
  'LAB': _lab,
}


def lab_samples() -> np.ndarray:
  """Colors that sRGB has."""
  return samples(8, 3) % [128, 32, 32] + [64, 112, 112]


def test_tiff_of_lab():
  values = lab_samples()
  signed = (values + [0, 128, 128]) % 256
  check(
    lambda orientation: image_files.tiff(signed, 8, 8, orientation=orientation),
    _lab(values.astype(float)),
    2,
  )


@pytest.mark.parametrize('mode', MODES)
def test_modes_of_several_channels(mode):
  channels = len(PIL.Image.new(mode, (1, 1)).getbands())
  values = samples(8, channels)
  if mode in ('La', 'RGBa'):
    values[..., :-1] = values[..., :-1] * values[..., -1:] // 255
  if mode == 'LAB':
    values = lab_samples()
  image = PIL.Image.merge(
    mode,
    [
      PIL.Image.fromarray(v.astype(np.uint8))
      for v in np.moveaxis(values, -1, 0)
    ],
  )
  if mode == 'PA':
    image.putpalette(GRAYS)
  most = {'LAB': 2, 'HSV': 3, 'YCbCr': 1.01}.get(mode, 1.01)
  expected = MODES[mode](values.astype(float)).clip(0, 255)
  np.testing.assert_allclose(
    rgb_lib.to_rgb(image).astype(float), expected, atol=most
  )


@pytest.mark.parametrize('has_key', [False, True])
@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'I', 'I;16', 'I;16B'])
def test_modes_of_one_channel(mode, has_key):
  bits = {'1': 1, 'L': 8, 'P': 8}.get(mode, 16)
  values = samples(bits, 1)[..., 0]
  stored = {
    '1': np.uint8,
    'I': np.int32,
    'I;16': '<u2',
    'I;16B': '>u2',
  }.get(mode, np.uint8)
  key = int(values[0, 0])
  if mode == '1':
    image = PIL.Image.fromarray((values * 255).astype(np.uint8)).convert('1')
  else:
    content = values.astype(stored).tobytes()
    image = PIL.Image.frombytes(mode, (WIDTH, HEIGHT), content)
  if mode == 'P':
    image.putpalette(GRAYS)
  if has_key:
    image.info['transparency'] = 255 * key if mode == '1' else key
  alpha = np.where(has_key & (values == key), 0, 255)
  expected = over_white(gray(narrow(values, bits)[..., None]), alpha)
  np.testing.assert_allclose(
    rgb_lib.to_rgb(image).astype(float), expected, atol=0
  )


def test_a_large_image_is_converted_in_bands():
  # More pixels than one band, in rows that do not divide it.
  side = 1100
  values = RNG.integers(0, 256, (side, side, 4), np.uint8)
  rgb = rgb_lib.to_rgb(PIL.Image.fromarray(values))
  expected = over_white(values[..., :3].astype(np.float32), values[..., 3])
  assert abs(rgb - expected).max() < 0.51


def test_tiff_of_12_bits():
  values = np.arange(0, 4096, 256)[None]
  digits = (values[..., None] >> np.arange(11, -1, -1) & 1).reshape(1, -1)
  data = image_files.tiff(
    np.packbits(digits).reshape(1, -1, 1),
    8,
    1,
    t256=[16],
    t258=[12],
  )
  np.testing.assert_array_equal(
    images.decode(data, 'x')[0, :, 0], values[0] // 16
  )


def test_tiff_of_ycbcr_without_compression_is_told():
  data = image_files.tiff(samples(8, 3), 8, 6)
  with pytest.raises(UserError, match='x is a TIFF of YCbCr values without'):
    images.decode(data + bytes(99), 'x')
