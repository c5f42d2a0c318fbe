"""The batch: packed rows of text and image slots, the only type that the data
pipeline and the models share.

Legend: B rows of a batch, L slots of a row, T text targets of a row, U
understanding images, E source images (to be edited) and G generated images of
a row, S and S2 sides in pixels of images that are read and generated.

A row of L = 16 slots that holds two packed examples, a caption (2 soft tokens
of an understanding image, prompt, answer) and a text-to-image pair (prompt,
image of 4 tokens):

    slot          0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    kind          U  U  T  T  T  T  T  T  T  T  G  G  G  G  .  .
    token_ids     .  .  b  c  s  f  o  b  f  s  i  .  .  .  .  .
    segment_ids   1  1  1  1  1  1  1  2  2  2  2  2  2  2  0  0
    positions     0  1  2  3  4  5  6  0  1  2  3  4  5  6  0  0
    mask_ar       0  0  0  0  0  1  1  0  0  0  1  1  1  1  0  0
    understanding_slots = [0]      generated_slots = [10]
    text_slots   = [4, 5, 6]       text_targets = [f, o, e]

b = BOS, s = separator, e = EOS, i = BOI; "fo" is the caption. The separator's
slot predicts the caption's first token, so the separator is the last slot of
the prefix.
"""

import enum
from typing import Any, NamedTuple

from jaxtyping import Float, Int, UInt8


class Kind(enum.IntEnum):
  """What a slot of a row holds."""

  PAD = 0
  TEXT = 1
  UNDERSTANDING = 2  # a soft token of the image encoder
  GENERATED = 3  # a continuous VAE token, or the BOI before the first


class Batch(NamedTuple):
  """Packed rows. Leaves are numpy arrays in the pipeline, jax arrays after.

  Attributes:
    token_ids: Vocabulary id of each text slot and of each BOI; pad elsewhere.
    kind: What each slot holds, a `Kind`.
    segment_ids: 0 for padding, then 1, 2, ... for the row's examples.
    positions: Index of the slot within its example (RoPE position).
    mask_ar: 0 where a slot joins its predecessor's attention block (prefix),
      1 where it opens a block of its own (causal target), as in PaliGemma.
    text_slots: Slots whose output predicts a text token; 0 where unused.
    text_targets: The token that each of those slots predicts.
    text_weights: 1 for a text target, 0 where unused.
    understanding_images: Pixels for the image encoder, RGB in 0..255.
    understanding_slots: First slot of each of those images, -1 where absent.
    source_images: Source images of edits, for the VAE, RGB in 0..255.
    source_slots: First slot of the edited image of each source, -1 where
      absent.
    generated_images: Target images, RGB in 0..255.
    generated_slots: First slot (the BOI) of each of those, -1 where absent.
  """

  token_ids: Int[Any, 'B L']
  kind: Int[Any, 'B L']
  segment_ids: Int[Any, 'B L']
  positions: Int[Any, 'B L']
  mask_ar: Int[Any, 'B L']
  text_slots: Int[Any, 'B T']
  text_targets: Int[Any, 'B T']
  text_weights: Float[Any, 'B T']
  understanding_images: UInt8[Any, 'B U S S 3']
  understanding_slots: Int[Any, 'B U']
  source_images: UInt8[Any, 'B E S2 S2 3']
  source_slots: Int[Any, 'B E']
  generated_images: UInt8[Any, 'B G S2 S2 3']
  generated_slots: Int[Any, 'B G']
