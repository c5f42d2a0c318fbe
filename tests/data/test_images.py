"""Image files to square RGB arrays."""

import io
import zlib

import numpy as np
import PIL.Image
import pytest

from unifluid_jax.data import images
from unifluid_jax.errors import UserError

LEFT_TO_RIGHT = np.tile(
  np.arange(0, 240, 20, dtype=np.uint8)[None, :, None], (6, 1, 3)
)  # 6 high, 12 wide


def encode(image: PIL.Image.Image, form: str = 'PNG', **options) -> bytes:
  data = io.BytesIO()
  image.save(data, form, **options)
  return data.getvalue()


def test_decode_is_exact_for_png():
  data = encode(PIL.Image.fromarray(LEFT_TO_RIGHT))
  np.testing.assert_array_equal(images.decode(data, 'x'), LEFT_TO_RIGHT)


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP'])
def test_damaged_exif(form):
  options = {'dpi': (72, 72)} if form == 'JPEG' else {}
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  whole = exif.tobytes()
  for length in range(7, len(whole)):
    data = encode(
      PIL.Image.new('RGB', (4, 4)), form, exif=whole[:length], **options
    )
    try:
      assert images.decode(data, 'x').shape == (4, 4, 3)
    except UserError as error:
      assert str(error).startswith('x is no image that Pillow can read')


@pytest.mark.parametrize('mode', ['L', 'P', '1', 'CMYK', 'RGBA', 'LA', 'I;16'])
def test_every_mode_becomes_rgb(mode):
  image = PIL.Image.new('L', (5, 4), 255).convert(mode)
  decoded = images.to_rgb(image)
  assert decoded.shape == (4, 5, 3)
  assert decoded.dtype == np.uint8


@pytest.mark.parametrize('dtype', [np.uint16, np.int32])
def test_grey_of_16_bits(dtype):
  grey = np.arange(0, 65536, 2048, dtype=dtype).reshape(4, 8)
  data = encode(PIL.Image.fromarray(grey), 'TIFF')
  expected = np.repeat(grey[..., None] // 256, 3, axis=2)
  np.testing.assert_array_equal(images.decode(data, 'x'), expected)


def test_grey_of_8_bits_in_32():
  grey = np.arange(32, dtype=np.int32).reshape(4, 8)
  data = encode(PIL.Image.fromarray(grey), 'TIFF')
  np.testing.assert_array_equal(images.decode(data, 'x')[..., 0], grey)


def test_fractions_are_told():
  fractions = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8)
  data = encode(PIL.Image.fromarray(fractions), 'TIFF')
  with pytest.raises(UserError, match='x holds fractions'):
    images.decode(data, 'x')


@pytest.mark.parametrize('form', images.FORMATS)
def test_too_many_pixels_are_told_before_decoding(form):
  data = encode(PIL.Image.new('RGB', (40, 30)), form)
  assert images.decode(data, 'x', most=1200).shape == (30, 40, 3)
  if form == 'PNG':  # Nothing but its header is read.
    data = data[:41] + bytes(20)
  message = 'x has 40 x 30 = 1,200 pixels; the limit is 1,199: scale it down'
  with pytest.raises(UserError, match=message):
    images.decode(data, 'x', most=1199)


def test_more_pixels_than_pillow_opens_are_told(monkeypatch):
  data = encode(PIL.Image.new('L', (40, 30)), 'PNG')
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 500)
  message = 'x has 1,200 pixels; the limit is 40,000,000'
  with pytest.raises(UserError, match=message):
    images.decode(data, 'x')


def test_the_limit_by_default_is_40_million():
  data = bytearray(encode(PIL.Image.new('L', (1, 1)), 'PNG'))
  data[16:24] = np.array([8000, 5001], '>u4').tobytes()
  data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
  with pytest.raises(UserError, match='8,000 x 5,001 = 40,008,000 pixels'):
    images.decode(bytes(data), 'x')


@pytest.mark.parametrize('form', ['ICO', 'PCX', 'TGA', 'SGI', 'PDF', 'EPS'])
def test_other_formats_are_not_opened(form):
  data = encode(PIL.Image.new('RGB', (16, 16)), form)
  with pytest.raises(UserError, match='x is no image .* as PNG, JPEG, .*PPM;'):
    images.decode(data, 'x')


@pytest.mark.parametrize('form', ['PNG', 'WebP', 'GIF'])
def test_what_is_transparent_becomes_white(form):
  image = PIL.Image.new('RGBA', (8, 8), (0, 0, 0, 0))
  image.paste((200, 0, 0, 255), (0, 0, 4, 8))
  options = {'lossless': True} if form == 'WebP' else {}
  decoded = images.decode(encode(image, form, **options), 'x')
  np.testing.assert_array_equal(decoded[0, 0], [200, 0, 0])
  np.testing.assert_array_equal(decoded[0, 7], [255, 255, 255])


def test_a_photograph_is_turned_upright():
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # turn by 90 degrees
  data = encode(PIL.Image.fromarray(LEFT_TO_RIGHT), 'PNG', exif=exif)
  assert images.decode(data, 'x').shape == (12, 6, 3)


def test_a_large_photograph_is_read_at_a_part_of_its_size():
  y, x = np.mgrid[:600, :800]
  wave = 127.5 + 127.5 * np.sin(x / 40) * np.cos(y / 30)
  pixels = np.stack([wave, 255 - wave, x * 0.3], -1).astype(np.uint8)
  data = encode(PIL.Image.fromarray(pixels), 'JPEG')
  whole, part = images.decode(data, 'x'), images.decode(data, 'x', least=70)
  assert whole.shape == pixels.shape
  assert part.shape == (75, 100, 3)
  assert images.decode(data, 'x', least=601).shape == pixels.shape
  fitted = [images.fit(image, 64).astype(float) for image in (whole, part)]
  assert abs(fitted[0] - fitted[1]).mean() < 1


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'WebP', 'GIF', 'AVIF'])
def test_a_broken_file_names_itself(form):
  noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  data = encode(PIL.Image.fromarray(noise), form)
  for cut in (0, 3, 20, len(data) // 2):
    with pytest.raises(UserError, match='fox.png is no image'):
      images.decode(data[:cut], 'fox.png')


def test_damaged_bytes_give_an_image_or_a_user_error():
  rng = np.random.default_rng(0)
  data = np.frombuffer(encode(PIL.Image.fromarray(LEFT_TO_RIGHT)), np.uint8)
  refused = 0
  for _ in range(200):
    damaged = data.copy()
    damaged[rng.integers(len(data), size=2)] = rng.integers(256, size=2)
    try:
      images.decode(damaged.tobytes(), 'x')
    except UserError:
      refused += 1
  assert refused > 100


def test_fit_takes_the_central_square():
  np.testing.assert_array_equal(
    images.fit(LEFT_TO_RIGHT, 6), LEFT_TO_RIGHT[:, 3:9]
  )
  turned = LEFT_TO_RIGHT.transpose(1, 0, 2).copy()
  np.testing.assert_array_equal(images.fit(turned, 6), turned[3:9])


@pytest.mark.parametrize('size', [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_fit_takes_any_size(size):
  image = np.full((*size, 3), (10, 20, 30), np.uint8)
  np.testing.assert_array_equal(
    images.fit(image, 8), np.full((8, 8, 3), (10, 20, 30), np.uint8)
  )


def test_fit_leaves_an_image_of_the_size_alone():
  square = LEFT_TO_RIGHT[:, :6].copy()
  assert images.fit(square, 6) is square


def test_fit_averages_when_it_shrinks():
  checks = np.indices((64, 64)).sum(0) % 2 * 255
  board = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
  inner = images.fit(board, 8)[1:-1, 1:-1].astype(int)
  assert abs(inner - 127).max() < 6, 'without antialiasing it would be 0 or 255'
