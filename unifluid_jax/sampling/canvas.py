"""In- and outpainting: images of which a part is kept and the rest redrawn.

Random order lets a model paint without training for it: the tokens to keep come
first in the decoding order, with their values from the VAE.

Legend: n images, S pixels along a side, N tokens of an image, Z dimensions of a
token.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8


class Canvas(NamedTuple):
  """Images to paint on.

  Attributes:
    images: Pixels, RGB in 0..255.
    redraw: True at the pixels to redraw.
  """

  images: UInt8[Any, 'n S S 3']
  redraw: Bool[Any, 'n S S']


class KnownTokens(NamedTuple):
  """Tokens that an image keeps.

  Attributes:
    tokens: All tokens in raster order; those that are not kept are ignored.
    kept: True at the tokens to keep.
  """

  tokens: Float[Array, 'n N Z']
  kept: Bool[Array, 'n N']

  def keep(
    self, sampled: Float[Array, 'n m Z'], positions: Int[Array, 'n m']
  ) -> Float[Array, 'n m Z']:
    """Replaces sampled tokens by the kept ones at their grid positions."""
    index = positions[..., None]
    tokens = jnp.take_along_axis(self.tokens, index, axis=1)
    kept = jnp.take_along_axis(self.kept[..., None], index, axis=1)
    return jnp.where(kept, tokens, sampled)


def kept_tokens(redraw: Bool[Array, 'n S S'], grid: int) -> Bool[Array, 'n N']:
  """Returns the tokens none of whose pixels is redrawn, in raster order.

  Args:
    redraw: True at the pixels to redraw.
    grid: Tokens along a side; N is its square.
  """
  images, side, _ = redraw.shape
  cell = side // grid
  cells = redraw.reshape(images, grid, cell, grid, cell)
  return ~cells.any((2, 4)).reshape(images, grid * grid)


def kept_first(
  positions: Int[Array, 'n N'], kept: Bool[Array, 'n N']
) -> Int[Array, 'n N']:
  """Moves the kept tokens to the front of each order, which stays otherwise."""
  in_order = jnp.take_along_axis(kept, positions, axis=1)
  rank = jnp.argsort(~in_order, axis=1, stable=True)
  return jnp.take_along_axis(positions, rank, axis=1)
