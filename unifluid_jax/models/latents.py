"""Latent grids to image tokens and back.

MAR's token geometry for a stride-8 VAE: p x p latents make one token, channel
major inside it (LTH14/mar, models/mar.py patchify).
"""

import einops
from jaxtyping import Array, Float


def to_tokens(
  latents: Float[Array, '*n h w c'], patch: int
) -> Float[Array, '*n N Z']:
  """Groups patch x patch latents of c channels into tokens of Z = c p p."""
  return einops.rearrange(
    latents,
    '... (h p) (w q) c -> ... (h w) (c p q)',
    p=patch,
    q=patch,
  )


def from_tokens(
  tokens: Float[Array, '*n N Z'], patch: int, side: int
) -> Float[Array, '*n h w c']:
  """The inverse of `to_tokens` for a grid of `side` x `side` latents."""
  return einops.rearrange(
    tokens,
    '... (h w) (c p q) -> ... (h p) (w q) c',
    h=side // patch,
    p=patch,
    q=patch,
  )
