"""Random-permutation masking: decoding orders of image tokens, inputs of image
slots, and attention masks.

Legend: B rows, L slots of a row, G generated images of a row, N tokens of an
image. `order[j]` is the grid position (raster index) that is decoded j-th.

Decoding 'causal': next-token prediction in permuted order. N = 4 and
order = [2, 0, 3, 1]; x_i is the token at grid position i:

    slot      j =  0         1         2         3
    input          BOI       x_2       x_0       x_3       last token decoded
    target at      2         0         3         1         target position
    predicts       x_2       x_0       x_3       x_1
    attends   0    #         .         .         .
              1    #         #         .         .
              2    #         #         #         .
              3    #         #         #         #

Decoding 'masked': masked prediction as in MAR (arXiv 2406.11838, section 3.4).
Slots are in raster order. The first `visible` positions of the order are
inputs, the others are predicted; attention within the block is bidirectional.
With the same order and visible = 1:

    slot      j =  0         1         2         3
    input          [mask]    [mask]    x_2       [mask]
    predicts       x_0       x_1                 x_3
    attends   all  #         #         #         #

The identity order turns 'causal' into raster-order generation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from unifluid_jax.batch import Kind
from unifluid_jax.utils.errors import UserError

CAUSAL = 'causal'
MASKED = 'masked'
DECODINGS = (CAUSAL, MASKED)

ORDERS = ('random', 'raster', 'anneal')
"""Orders of image tokens in training; 'anneal' fades from random to raster."""

# MAR's distribution of the masked share: N(1, 0.25^2) cut to [0.7, 1]
# (LTH14/mar, models/mar.py).
_MASKED_SHARE_STD = 0.25
_MASKED_SHARE_MIN = 0.7


class Order(NamedTuple):
  """Decoding orders of images: [B G] for a batch, [B] for a sampler.

  Attributes:
    positions: Grid position decoded j-th, a permutation of 0..N-1.
    visible: Number of positions that are inputs; for decoding 'masked' only.
  """

  positions: Int[Array, '*B N']
  visible: Int[Array, '*B']


def random_share(
  step: Int[Array, ''], raster_fade: tuple[int, int] | None
) -> Float[Array, '']:
  """Returns the share of images in random order: 1, falling linearly to 0.

  Random-to-raster annealing is RAR's (bytedance/1d-tokenizer, rar.py).

  Args:
    step: Training step.
    raster_fade: First step of the fade to raster order, and first step
      without random order; None keeps random order.
  """
  if raster_fade is None:
    return jnp.float32(1)
  start, end = raster_fade
  if start >= end:
    return jnp.float32(step < end)
  return 1 - jnp.clip((step - start) / (end - start), 0, 1)


def decodes_raster(step: int, raster_fade: tuple[int, int] | None) -> bool:
  """Whether a trained model decodes images in raster order.

  It does once its training has no random order left. Until then it decodes in
  random order, which it has seen from the first step.

  Args:
    step: Steps of training.
    raster_fade: As in `random_share`.
  """
  return bool(random_share(jnp.int32(step), raster_fade) == 0)


def draw_order(
  key: PRNGKeyArray,
  rows: int,
  images: int,
  tokens: int,
  share: Float[Array, ''] | float = 1.0,
) -> Order:
  """Draws the order of each image, and the number of its visible tokens.

  Args:
    key: Random key.
    rows: B.
    images: G.
    tokens: N.
    share: Probability that an image's order is random, else it is raster.
  """
  permutation_key, raster_key, visible_key = jax.random.split(key, 3)
  shape = (rows, images, tokens)
  raster = jnp.broadcast_to(jnp.arange(tokens), shape)
  shuffled = jax.random.permutation(
    permutation_key, raster, axis=-1, independent=True
  )
  is_random = jax.random.uniform(raster_key, (rows, images, 1)) < share
  lowest = (_MASKED_SHARE_MIN - 1) / _MASKED_SHARE_STD
  masked_share = 1 + _MASKED_SHARE_STD * jax.random.truncated_normal(
    visible_key, lowest, 0.0, (rows, images)
  )
  masked = jnp.ceil(tokens * masked_share).astype(jnp.int32)
  return Order(
    jnp.where(is_random, shuffled, raster),
    tokens - jnp.clip(masked, 1, tokens),
  )


def is_visible(order: Order) -> Bool[Array, '*B N']:
  """Decoding 'masked': True at the grid positions that are inputs."""
  rank = jnp.argsort(order.positions, axis=-1)
  return rank < order.visible[..., None]


def image_index(
  slots: Int[Array, 'B M'], tokens: int, length: int
) -> Int[Array, 'B L']:
  """Returns each slot's index into its row's M x `tokens` image tokens, or -1.

  Args:
    slots: First slot of each image's block, -1 where absent.
    tokens: Slots of one image.
    length: L.
  """
  offset = jnp.arange(length)[None, :, None] - slots[:, None, :]
  inside = (slots[:, None, :] >= 0) & (offset >= 0) & (offset < tokens)
  index = offset + tokens * jnp.arange(slots.shape[1])
  return jnp.max(jnp.where(inside, index, -1), axis=-1, initial=-1)


def open_image_blocks(
  mask_ar: Int[Array, 'B L'],
  kind: Int[Array, 'B L'],
  generated_slots: Int[Array, 'B G'],
) -> Int[Array, 'B L']:
  """Decoding 'masked': joins the slots of each generated image into one block.

  mask_ar    0 0 0 1 1 1 1      kind  T T T G G G G
  becomes    0 0 0 1 0 0 0
  """
  starts = image_index(generated_slots, 1, mask_ar.shape[1]) >= 0
  return jnp.where((kind == Kind.GENERATED) & ~starts, 0, mask_ar)


def attention_mask(
  segment_ids: Int[Array, 'B L'], mask_ar: Int[Array, 'B L']
) -> Bool[Array, 'B L L']:
  """Returns the prefix-LM mask inside examples; examples do not see each other.

  A slot attends to the slots of its example whose block is not after its own;
  `mask_ar` 1 opens a block (big_vision's make_attn_mask). Rows are queries,
  columns keys; two packed examples and one pad:

    segment   1 1 1 1 2 2 2 0
    mask_ar   0 0 1 1 0 1 1 0

    1 0       # # . . . . . .      prefix: bidirectional
    1 0       # # . . . . . .
    1 1       # # # . . . . .      target: causal
    1 1       # # # # . . . .
    2 0       . . . . # . . .
    2 1       . . . . # # . .
    2 1       . . . . # # # .
    0 0       . . . . . . . .      padding attends to nothing
  """
  block = jnp.cumsum(mask_ar, axis=-1)
  not_after = block[:, None, :] <= block[:, :, None]
  same = segment_ids[:, None, :] == segment_ids[:, :, None]
  return same & not_after & (segment_ids > 0)[:, None, :]


def tokens_per_step(tokens: int, steps: int | None) -> tuple[int, ...]:
  """Returns the tokens of each decoding step: MaskGIT's cosine schedule.

  After step k of K, floor(N cos(pi/2 (k+1)/K)) tokens are left, but every
  step decodes at least one (Chang et al., arXiv 2202.04200; MAR). The floors
  make the counts go up and down by one. They are sorted here, because each
  change of the count is another program to compile.

  Raises:
    UserError: More steps than tokens, or no steps.
  """
  steps = tokens if steps is None else steps
  if not 1 <= steps <= tokens:
    raise UserError(
      f'{steps} decoding steps; an image of {tokens} tokens takes 1 to {tokens}'
    )
  counts, left = [], tokens
  for step in range(1, steps + 1):
    goal = math.floor(tokens * math.cos(math.pi / 2 * step / steps))
    # Later steps need a token each.
    goal = max(min(goal, left - 1), steps - step)
    counts.append(left - goal)
    left = goal
  return tuple(sorted(counts))


def parallel_steps(tokens: int) -> int:
  """Returns the number of steps that decode about three tokens each.

  Evaluation and benchmarks compare it with sequential decoding.
  """
  return max(1, tokens // 3)


def decoding_mask(
  valid: Bool[Array, 'B P'],
  slots: int,
  written: Int[Array, ''] | int,
  kept: int,
  queries: int,
) -> Bool[Array, 'B R S']:
  """Returns the mask of a causal decoding step over a KV cache of S slots.

  The step feeds R = kept + queries - 1 slots after the `written` ones. The
  first `kept` stay in the cache; the last of them is the first query. The
  other queries repeat its token with other target positions. They attend to
  the slots that stay, but not to the first query or to each other, and the
  next step overwrites them. With P = 2 prefix slots (the first one padding),
  written = 3 (one image slot so far), kept = 2, queries = 3:

                 prefix  image       this step
                 0   1   2           3   4   5   6
    kept         .   #   #           #   .   .   .
    kept, query  .   #   #           #   #   .   .
    query        .   #   #           #   .   #   .
    query        .   #   #           #   .   .   #

  Args:
    valid: False at the padding of the prefix.
    slots: S, capacity of the cache.
    written: Cache slots in use before this step, the prefix included.
    kept: Slots of this step that stay in the cache.
    queries: Tokens to decode in this step.
  """
  rows = kept + queries - 1
  row = jnp.arange(rows)[:, None]
  column = jnp.arange(slots)[None, :] - written
  before = column < jnp.where(row < kept, 0, kept - 1)
  causal = (row < kept) & (column >= 0) & (column <= row)
  prefix = valid.shape[1]
  shown = jnp.pad(valid, ((0, 0), (0, slots - prefix)), constant_values=True)
  return (before | causal | (column == row))[None] & shown[:, None, :]
