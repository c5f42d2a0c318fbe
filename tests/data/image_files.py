"""Writes PNG, BMP and TIFF files bit by bit, as their specifications say."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

ORIENTATION = 274


def pack(samples: np.ndarray, bits: int, order: str = '>') -> list[bytes]:
  """The bytes of each row of samples [H, ...], padded to a whole byte."""
  rows = samples.reshape(len(samples), -1)
  if bits >= 8:
    return [row.astype(f'{order}u{bits // 8}').tobytes() for row in rows]
  each = (rows[..., None] >> np.arange(bits)[::-1]) & 1
  return [np.packbits(row.reshape(-1)).tobytes() for row in each]


def exif(orientation: int) -> bytes:
  """An EXIF block with nothing but an orientation."""
  entry = struct.pack('>HHIHH', ORIENTATION, 3, 1, orientation, 0)
  return b'MM\0*\0\0\0\x08\0\1' + entry + bytes(4)


def png(
  samples: np.ndarray,
  kind: int,
  bits: int,
  orientation: int,
  palette: np.ndarray | None = None,
  transparency: bytes | None = None,
) -> bytes:
  """A PNG file.

  Args:
    samples: [H, W] or [H, W, channels].
    kind: Colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
    bits: Bits of a sample.
    orientation: Of EXIF, 1..8.
    palette: [colours, 3] in 0..255.
    transparency: Content of tRNS.
  """

  def chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', check)

  height, width = samples.shape[:2]
  rows = b''.join(b'\0' + row for row in pack(samples, bits))
  header = struct.pack('>IIBBBBB', width, height, bits, kind, 0, 0, 0)
  chunks = [chunk(b'IHDR', header)]
  if palette is not None:
    chunks.append(chunk(b'PLTE', palette.astype(np.uint8).tobytes()))
  if transparency is not None:
    chunks.append(chunk(b'tRNS', transparency))
  chunks.append(chunk(b'IDAT', zlib.compress(rows)))
  chunks.append(chunk(b'eXIf', exif(orientation)))  # may come last
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunks) + chunk(b'IEND', b'')


def bmp(samples: np.ndarray) -> bytes:
  """A BMP file of version 4, whose masks tell alpha [H, W, 4]."""
  height, width = samples.shape[:2]
  pixels = samples[::-1, :, [2, 1, 0, 3]].astype(np.uint8).tobytes()
  header = struct.pack('<IiiHHII', 108, width, height, 1, 32, 3, len(pixels))
  header += bytes(16)
  header += struct.pack('<4I', 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
  header = header.ljust(108, b'\0')
  start = 14 + len(header)
  size = start + len(pixels)
  return b'BM' + struct.pack('<III', size, 0, start) + header + pixels


def tiff(
  samples: np.ndarray,
  photometric: int,
  bits: int,
  orientation: int,
  order: str = '<',
  extra: int | None = None,
  sample_format: int = 1,
  palette: np.ndarray | None = None,
  strip: bytes | None = None,
) -> bytes:
  """An uncompressed TIFF file of one strip.

  Args:
    samples: [H, W] or [H, W, channels]; their bits are written as they are.
    photometric: 0 and 1 grey, 2 RGB, 3 palette, 5 CMYK, 8 L*a*b*.
    bits: Bits of a sample.
    orientation: 1..8.
    order: '<' or '>', the order of bytes.
    extra: Meaning of the last channel: 0 none, 1 alpha that colours are
      multiplied by, 2 alpha.
    sample_format: 1 unsigned, 2 signed, 3 fractions.
    palette: [2**bits, 3] in 0..255.
    strip: The samples as bytes, where `pack` does not make them.
  """
  height, width = samples.shape[:2]
  channels = samples[0, 0].size
  if strip is None:
    strip = b''.join(pack(samples, bits, order))
  tags: dict[int, tuple[str, Sequence[int]]] = {
    256: ('H', [width]),
    257: ('H', [height]),
    258: ('H', [bits] * channels),
    259: ('H', [1]),  # no compression
    262: ('H', [photometric]),
    273: ('I', [8]),  # where the strip is
    ORIENTATION: ('H', [orientation]),
    277: ('H', [channels]),
    278: ('H', [height]),
    279: ('I', [len(strip)]),
    339: ('H', [sample_format] * channels),
  }
  if extra is not None:
    tags[338] = ('H', [extra])
  if palette is not None:
    tags[320] = ('H', (palette.astype(int) * 257).T.ravel().tolist())
  return _with_directory(strip + bytes(len(strip) % 2), tags, order)


def _with_directory(
  strip: bytes, tags: dict[int, tuple[str, Sequence[int]]], order: str
) -> bytes:
  """The file of a strip and its tags: (type, values), which follow it."""
  start = 8 + len(strip)
  behind = start + 2 + 12 * len(tags) + 4
  entries, values = b'', b''
  for tag, (kind, numbers) in sorted(tags.items()):
    data = struct.pack(f'{order}{len(numbers)}{kind}', *numbers)
    entries += struct.pack(
      f'{order}HHI', tag, 3 if kind == 'H' else 4, len(numbers)
    )
    if len(data) <= 4:
      entries += data.ljust(4, b'\0')
    else:
      entries += struct.pack(f'{order}I', behind + len(values))
      values += data + bytes(len(data) % 2)
  mark = b'II' if order == '<' else b'MM'
  header = mark + struct.pack(f'{order}HI', 42, start)
  count = struct.pack(f'{order}H', len(tags))
  return header + strip + count + entries + bytes(4) + values
