"""Image files to square RGB arrays."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest

from tests.data import image_files
from unifluid_jax.data import images
from unifluid_jax.utils.errors import UserError

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


def test_a_damaged_header_of_another_format():
  data = bytearray(encode(PIL.Image.new('RGBA', (4, 4)), 'DDS'))
  data[80:88] = (4).to_bytes(4, 'little') + b'none'  # its pixels' code
  with pytest.raises(UserError, match='x is not a readable image'):
    images.decode(bytes(data), 'x')


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
      assert str(error).startswith('x is not a readable image: ')


@pytest.mark.parametrize('dtype', [np.uint16, np.int32])
def test_grey_of_16_bits(dtype):
  gray = np.arange(0, 65536, 2048, dtype=dtype).reshape(4, 8)
  data = encode(PIL.Image.fromarray(gray), 'TIFF')
  expected = np.repeat(gray[..., None] // 256, 3, axis=2)
  np.testing.assert_array_equal(images.decode(data, 'x'), expected)


def test_grey_of_8_bits_in_32():
  gray = np.arange(32, dtype=np.int32).reshape(4, 8)
  data = encode(PIL.Image.fromarray(gray), 'TIFF')
  np.testing.assert_array_equal(images.decode(data, 'x')[..., 0], gray)


def test_fractions_are_told():
  fractions = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8)
  data = encode(PIL.Image.fromarray(fractions), 'TIFF')
  with pytest.raises(UserError, match='x holds fractions'):
    images.decode(data, 'x')


def header(width: int, height: int) -> bytes:
  """A PNG that announces more pixels than it has."""
  data = image_files.png(np.zeros((1, 1, 3), int), 8, 2)
  sizes = struct.pack('>LLBBBBB', width, height, 8, 2, 0, 0, 0)
  check = struct.pack('>L', zlib.crc32(b'IHDR' + sizes))
  return data[:16] + sizes + check + data[33:]


@pytest.mark.parametrize('side', [13_000, 14_000])  # Pillow opens the first.
def test_more_pixels_than_the_limit_are_told_before_decoding(side):
  message = (
    f'x has {side**2:,} pixels, more than the limit of 40,000,000; '
    'scale it down$'
  )
  tracemalloc.start()
  with pytest.raises(UserError, match=message):
    images.decode(header(side, side), 'x')
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


def test_the_limit_can_be_set():
  data = encode(PIL.Image.new('L', (40, 30)))
  assert images.decode(data, 'x', max_pixels=1200).shape == (30, 40, 3)
  with pytest.raises(UserError, match='1,200 pixels, .* 1,199; do that'):
    images.decode(data, 'x', max_pixels=1199, remedy='do that')


def test_a_large_tile_of_a_small_tiff_is_refused():
  pixels = np.zeros((16, 16, 1), int)
  side = 30_000
  data = image_files.tiff(
    pixels, 8, 1, t259=[8], t322=[side], t323=[side], t324=[8], t325=[256]
  )
  with pytest.raises(UserError, match='x has 900,000,000 pixels, more than'):
    images.decode(data, 'x')


@pytest.mark.parametrize('form', ['EPS', 'ICO', 'PDF', 'TGA', 'PCX', 'SGI'])
def test_other_formats_are_refused(form):
  data = encode(PIL.Image.new('RGB', (16, 16)), form)
  with pytest.raises(
    UserError, match='x is not a readable image.* formats PNG, JPEG'
  ):
    images.decode(data, 'x')


def test_a_jpeg_of_endless_scans_is_refused():
  data = encode(PIL.Image.new('L', (16, 16)), 'JPEG', progressive=True)
  start = data.index(b'\xff\xda')
  scan = data[start : data.index(b'\xff', start + 2)]
  assert images.decode(data, 'x').shape == (16, 16, 3)
  with pytest.raises(UserError, match='more than 100 scans'):
    images.decode(data[:start] + 100 * scan + data[start:], 'x')


@pytest.mark.parametrize('kind', [b'iCCP', b'zTXt', b'iTXt'])
def test_a_bomb_in_a_text_or_a_profile_is_refused(kind):
  packed = zlib.compress(bytes(2**24))
  content = (b'a\0\1\0\0\0' if kind == b'iTXt' else b'a\0\0') + packed
  check = struct.pack('>L', zlib.crc32(kind + content))
  chunk = struct.pack('>L', len(content)) + kind + content + check
  data = image_files.png(np.zeros((2, 2, 3), int), 8, 2)
  tracemalloc.start()
  with pytest.raises(UserError, match='x is not a readable image'):
    images.decode(data[:33] + chunk + data[33:], 'x')
  assert tracemalloc.get_traced_memory()[1] < 2**23
  tracemalloc.stop()


@pytest.mark.parametrize('form', ['GIF', 'PNG', 'WebP', 'TIFF', 'AVIF'])
def test_the_first_of_several_frames_is_read(form):
  frames = [PIL.Image.new('RGB', (16, 16), c) for c in ('red', 'lime', 'blue')]
  data = encode(frames[0], form, save_all=True, append_images=frames[1:])
  mean = images.decode(data, 'x').mean((0, 1))
  np.testing.assert_allclose(mean, [255, 0, 0], atol=3)


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
    with pytest.raises(UserError, match='fox.png is not a readable image'):
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
