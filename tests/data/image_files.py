"""PNG and TIFF files written bit by bit, without Pillow."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def pack(samples: np.ndarray, bits: int, order: str = '>') -> bytes:
  """Samples [row, sample] as a file holds them: each row fills whole bytes."""
  if bits > 8:
    return samples.astype(f'{order}u{bits // 8}').tobytes()
  shifts = np.arange(bits - 1, -1, -1)
  digits = samples[..., None] >> shifts & 1
  return np.packbits(digits.reshape(len(samples), -1), axis=1).tobytes()


def png(
  pixels: np.ndarray,
  bits: int,
  color: int,
  palette: bytes = b'',
  transparent: bytes = b'',
  orientation: int = 1,
) -> bytes:
  """A PNG of pixels [H W C].

  Args:
    pixels: Samples as they are written, each of so many bits.
    bits: Bits of a sample.
    color: PNG's color type: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6
      RGB and alpha.
    palette: The content of PLTE; empty for none.
    transparent: The content of tRNS; empty for none.
    orientation: The orientation that EXIF tells.
  """
  height, width, channels = pixels.shape
  rows = [pack(row.reshape(1, width * channels), bits) for row in pixels]
  exif = b'MM\0\x2a' + struct.pack(
    '>LHHHLHHL', 8, 1, 274, 3, 1, orientation, 0, 0
  )
  chunks = [
    (b'IHDR', struct.pack('>LLBBBBB', width, height, bits, color, 0, 0, 0)),
    (b'eXIf', exif),
    (b'PLTE', palette),
    (b'tRNS', transparent),
    (b'IDAT', zlib.compress(b''.join(b'\0' + row for row in rows))),
  ]
  chunks = [chunk for chunk in chunks if chunk[1]] + [(b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>L', len(content))
    + kind
    + content
    + struct.pack('>L', zlib.crc32(kind + content))
    for kind, content in chunks
  )


def tiff(
  pixels: np.ndarray,
  bits: int,
  photometric: int,
  order: str = '<',
  orientation: int = 1,
  extra: int | None = None,
  colormap: Sequence[int] = (),
  **more: Sequence[int],
) -> bytes:
  """An uncompressed TIFF of pixels [H W C] in one strip.

  Args:
    pixels: Samples as they are written, each of so many bits.
    bits: Bits of a sample.
    photometric: What the samples mean: 0 gray from white to black, 1 gray, 2
      RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 Lab.
    order: '<' or '>', the byte order.
    orientation: EXIF's orientation.
    extra: What the last channel is: 0 nothing, 1 associated alpha, 2 alpha.
    colormap: Reds, greens and blues of 16 bits of a palette.
    **more: Further tags by 'tNUMBER', or other values of those above.
  """
  height, width, channels = pixels.shape
  content = b''.join(
    pack(row.reshape(1, width * channels), bits, order) for row in pixels
  )
  content += b'\0' * (len(content) % 2)
  tags: dict[int, Sequence[int]] = {
    256: [width],
    257: [height],
    258: [bits] * channels,
    259: [1],
    262: [photometric],
    273: [8],
    274: [orientation],
    277: [channels],
    278: [height],
    279: [len(content)],
  }
  if extra is not None:
    tags[338] = [extra]
  if colormap:
    tags[320] = colormap
  tags |= {int(name[1:]): values for name, values in more.items()}
  first = 8 + len(content)
  heap = first + 2 + 12 * len(tags) + 4
  entries, values = b'', b''
  for tag, numbers in sorted(tags.items()):
    form = 'H' if max(numbers) < 2**16 else 'L'
    packed = struct.pack(f'{order}{len(numbers)}{form}', *numbers)
    entries += struct.pack(
      f'{order}HHL', tag, 3 if form == 'H' else 4, len(numbers)
    )
    if len(packed) > 4:
      entries += struct.pack(f'{order}L', heap + len(values))
      values += packed + b'\0' * (len(packed) % 2)
    else:
      entries += packed.ljust(4, b'\0')
  start = {'<': b'II\x2a\0', '>': b'MM\0\x2a'}[order]
  return (
    start
    + struct.pack(f'{order}L', first)
    + content
    + struct.pack(f'{order}H', len(tags))
    + entries
    + bytes(4)
    + values
  )
