"""Drawings to pixels: SVG through resvg, and compositing on a background."""

import collections
import io
import threading

import numpy as np
import resvg
from jaxtyping import UInt8
from PIL import Image as PillowImage

from unifluid_jax.data.emoji.catalog import Icon, load_catalog

CACHE_BYTES = 2**29
"""Memory for rendered drawings: all of them at 64 px, and parts of scenes."""


def render_icon(icon: Icon, side: int) -> UInt8[np.ndarray, '{side} {side} 4']:
  """Renders a drawing to RGBA with straight (not premultiplied) alpha."""
  svg = (
    '<svg xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" '
    f'width="{side}" height="{side}" '
    f'viewBox="{icon.left} {icon.top} {icon.width} {icon.height}">'
    f'{icon.body}</svg>'
  )
  tree = resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
  png = bytes(resvg.render(tree, (1, 0, 0, 0, 1, 0)))
  with PillowImage.open(io.BytesIO(png)) as image:
    rgba = np.array(image.convert('RGBA'))
  rgba.setflags(write=False)  # cached images are shared
  return rgba


def render(
  artist: str, hex: str, side: int
) -> UInt8[np.ndarray, '{side} {side} 4']:
  """Renders an artist's emoji at any size, with a cache.

  Args:
    artist: One of ARTISTS.
    hex: Code points of an emoji that the artist drew.
    side: Pixels.

  Returns:
    RGBA with straight alpha, read-only.
  """
  return _CACHE.get(artist, hex, side)


class _Cache:
  """A cache of recent drawings, up to CACHE_BYTES."""

  def __init__(self):
    self._drawings: collections.OrderedDict[tuple, np.ndarray] = (
      collections.OrderedDict()
    )
    self._bytes = 0
    self._lock = threading.Lock()

  def get(self, artist: str, hex: str, side: int) -> np.ndarray:
    """See `render`."""
    key = artist, hex, side
    with self._lock:
      if key in self._drawings:
        self._drawings.move_to_end(key)
        return self._drawings[key]
    drawing = render_icon(load_catalog().icons[artist][hex], side)
    with self._lock:
      if key not in self._drawings:  # Another thread may have been faster.
        self._drawings[key] = drawing
        self._bytes += drawing.nbytes
      while self._bytes > CACHE_BYTES:
        _, oldest = self._drawings.popitem(last=False)
        self._bytes -= oldest.nbytes
    return drawing


_CACHE = _Cache()


def composite(
  rgba: UInt8[np.ndarray, 'H W 4'],
  background: tuple[int, int, int] | UInt8[np.ndarray, 'H W 3'],
) -> UInt8[np.ndarray, 'H W 3']:
  """Lays RGBA over a color or over an image of the same size.

  Each value is rounded to the nearest integer of
  (alpha * foreground + (255 - alpha) * background) / 255.
  """
  alpha = rgba[..., 3:].astype(np.uint32)
  below = np.asarray(background, np.uint32)
  mixed = rgba[..., :3] * alpha + below * (255 - alpha)
  return ((mixed + 127) // 255).astype(np.uint8)
