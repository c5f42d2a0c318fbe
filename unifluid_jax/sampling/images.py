"""Writes images: prefill, decoding steps over a KV cache, a diffusion head.

A decoding step writes m tokens at once. In order 'causal' the last token
written is fed m times, each time with another target position (see
`masking.decoding_mask`); nothing but inputs that training has seen. Sequential
decoding is m = 1 throughout.

Legend: B images, R rows (2 B with guidance: conditional first), N tokens of an
image, Z channels of a token, m tokens of a step.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unifluid_jax import masking
from unifluid_jax.batch import Batch
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.diffusion.solvers import Solver
from unifluid_jax.errors import UserError
from unifluid_jax.models.gemma import KVCache
from unifluid_jax.models.unifluid import UniFluid
from unifluid_jax.sampling.prefill import Prefilled, prefill


@dataclasses.dataclass(frozen=True)
class ImageSamplingConfig:
  """How images are written.

  Attributes:
    steps: Decoding steps of an image; None for one a token.
    solver: Diffusion solver of the head.
    head_steps: Steps of that solver.
    guidance: Classifier-free guidance.
    temperature: Scale of the noise, see `solvers`.
  """

  steps: int | None = None
  solver: str = 'heun'
  head_steps: int = 10
  guidance: Guidance = Guidance()
  temperature: float = 1.0


class Written(NamedTuple):
  """Images as tokens.

  Attributes:
    tokens: Tokens in raster order.
    positions: Grid position of the token written j-th.
  """

  tokens: Float[Array, 'B N Z']
  positions: Int[Array, 'B N']


def tokens_per_step(tokens: int, steps: int | None) -> tuple[int, ...]:
  """Tokens written in each decoding step: MaskGIT's cosine schedule.

  After step k of K, floor(N cos(pi/2 (k+1)/K)) tokens are left, but every
  step writes one at least (Chang et al., arXiv 2202.04200; MAR).

  Raises:
    UserError: More steps than tokens, or none.
  """
  steps = tokens if steps is None else steps
  if not 1 <= steps <= tokens:
    raise UserError(
      f'sampling.steps is {steps}; an image of {tokens} tokens takes 1 to '
      f'{tokens} decoding steps'
    )
  counts, left = [], tokens
  for step in range(1, steps + 1):
    goal = math.floor(tokens * math.cos(math.pi / 2 * step / steps))
    # Later steps need a token each.
    goal = max(min(goal, left - 1), steps - step)
    counts.append(left - goal)
    left = goal
  return tuple(counts)


class _Span(NamedTuple):
  """Consecutive decoding steps of one shape, run by one scan."""

  kept: int
  queries: int
  first: tuple[int, ...]


def _spans(counts: tuple[int, ...]) -> Iterator[_Span]:
  """Groups steps whose own and preceding counts are equal."""
  firsts = [0, *itertools.accumulate(counts)][:-1]
  shapes = zip((1, *counts[:-1]), counts, firsts, strict=True)
  # The first step has BOI for an input, which no other step has.
  for (kept, queries, _), group in itertools.groupby(
    shapes, lambda shape: (shape[0], shape[1], shape[2] == 0)
  ):
    yield _Span(kept, queries, tuple(first for _, _, first in group))


class _Progress(NamedTuple):
  """The carry of decoding; tokens stand in the order that they are written."""

  cache: KVCache
  written: Float[Array, 'B N Z']


def draw_positions(
  keys: Key[Array, ' B'], tokens: int, raster: bool
) -> Int[Array, 'B N']:
  """The order of each image: random, or raster for a model of that order."""
  order = jnp.broadcast_to(jnp.arange(tokens), (keys.shape[0], tokens))
  if raster:
    return order
  return jax.vmap(jax.random.permutation)(
    jax.vmap(jax.random.fold_in)(keys, jnp.full(keys.shape, tokens)), order
  )


def write_images(
  model: UniFluid,
  solver: Solver,
  guidance: Guidance,
  temperature: float,
  counts: tuple[int, ...],
  prefix: Batch,
  keys: Key[Array, ' B'],
  positions: Int[Array, 'B N'],
  sources: Float[Array, 'R E N Z'] | None = None,
) -> Written:
  """Writes one image after each prefix.

  Args:
    model: The model.
    solver: Solver of the diffusion head.
    guidance: Guidance; with a scale other than 1 the prefixes are R = 2 B,
      the conditional ones first, then as many unconditional ones.
    temperature: Scale of the noise.
    counts: Tokens of each decoding step.
    prefix: Prefixes, padded on the left.
    keys: One key an image.
    positions: Order that each image is written in.
    sources: Tokens of the images to be edited, if there are any.
  """
  state = prefill(model, prefix, model.config.image_tokens, sources)
  branches = prefix.token_ids.shape[0] // positions.shape[0]
  if model.config.order == masking.MASKED:
    decode = _masked_step
  else:
    decode = _causal_step
  total = positions.shape[1]

  def step(progress, first, span):
    hidden, cache = decode(
      model, state, progress, positions, branches, first, span
    )
    slots = first + jnp.arange(span.queries)
    token_keys = jax.vmap(
      lambda key: jax.vmap(lambda slot: jax.random.fold_in(key, slot))(slots)
    )(keys)
    fraction = (first + span.queries) / total
    tokens = _draw_tokens(
      model, solver, guidance, temperature, fraction, hidden, token_keys
    )
    written = jax.lax.dynamic_update_slice(
      progress.written, tokens, (0, first, 0)
    )
    return _Progress(cache, written)

  empty = jnp.zeros((*positions.shape, model.config.token_dim))
  progress = _Progress(state.cache, empty)
  for span in _spans(counts):
    if span.first == (0,):
      progress = step(progress, 0, span)
      continue
    body = functools.partial(_scanned, step, span)
    progress, _ = jax.lax.scan(body, progress, jnp.array(span.first))
  raster = jnp.argsort(positions, axis=-1)
  tokens = jnp.take_along_axis(progress.written, raster[..., None], axis=1)
  return Written(tokens, positions)


def _scanned(
  step: Callable[..., _Progress],
  span: _Span,
  progress: _Progress,
  first: Int[Array, ''],
) -> tuple[_Progress, None]:
  return step(progress, first, span), None


def _draw_tokens(
  model: UniFluid,
  solver: Solver,
  guidance: Guidance,
  temperature: float,
  fraction: Float[Array, ''] | float,
  hidden: Float[Array, 'R m D'],
  keys: Key[Array, 'B m'],
) -> Float[Array, 'B m Z']:
  """The diffusion head's samples for a step's hidden states."""
  condition = model.head.embed_condition(
    hidden.astype(jnp.float32).reshape(-1, hidden.shape[-1])
  )

  def predict(x_t, time):
    return model.head(x_t, time, condition)

  if hidden.shape[0] != keys.shape[0]:
    predict = guidance.guide(predict, fraction)
  tokens = solver.sample(
    predict, keys.reshape(-1), model.config.token_dim, temperature
  )
  return tokens.reshape(*keys.shape, -1)


def _causal_step(
  model: UniFluid,
  state: Prefilled,
  progress: _Progress,
  positions: Int[Array, 'B N'],
  branches: int,
  first: Int[Array, ''] | int,
  span: _Span,
) -> tuple[Float[Array, 'R m D'], KVCache]:
  """Feeds what the last step wrote, and asks for the next tokens."""
  kept, queries = span.kept, span.queries
  start = first - kept + 1

  def window(values, begin, size):
    return jax.lax.dynamic_slice_in_dim(values, begin, size, axis=1)

  if isinstance(first, int):
    told = jnp.broadcast_to(
      model.embed_boi(), (positions.shape[0], 1, model.config.gemma.width)
    )
  else:
    told = model.embed_tokens(
      window(progress.written, start - 1, kept),
      window(positions, start - 1, kept),
    )
  # The last token known is fed once for each query.
  told = jnp.concatenate(
    [told, jnp.repeat(told[:, -1:], queries - 1, axis=1)], axis=1
  )
  x = told + model.ask_for(window(positions, start, kept + queries - 1))
  offsets = start + jnp.minimum(jnp.arange(kept + queries - 1), kept - 1)
  index = state.valid.shape[1] + start
  mask = masking.decoding_mask(
    state.valid,
    progress.cache.positions.shape[1],
    index,
    kept,
    queries,
  )
  hidden, cache = model(
    jnp.tile(x, (branches, 1, 1)),
    state.length[:, None] + offsets,
    mask,
    progress.cache,
    index,
  )
  assert cache is not None
  return hidden[:, kept - 1 :], cache


def _masked_step(
  model: UniFluid,
  state: Prefilled,
  progress: _Progress,
  positions: Int[Array, 'B N'],
  branches: int,
  first: Int[Array, ''] | int,
  span: _Span,
) -> tuple[Float[Array, 'R m D'], KVCache]:
  """Feeds the whole image block anew, and asks for some of its masked slots."""
  rows, total = positions.shape
  raster = jnp.argsort(positions, axis=-1)
  tokens = jnp.take_along_axis(progress.written, raster[..., None], axis=1)
  visible = jnp.broadcast_to(jnp.asarray(first), (rows,))
  x = model.write_inputs(tokens, masking.Order(positions, visible))
  prefix = state.valid.shape[1]
  shown = jnp.pad(state.valid, ((0, 0), (0, total)), constant_values=True)
  mask = jnp.broadcast_to(
    shown[:, None], (shown.shape[0], total, shown.shape[1])
  )
  hidden, cache = model(
    jnp.tile(x, (branches, 1, 1)),
    state.length[:, None] + jnp.arange(total),
    mask,
    progress.cache,
    prefix,
  )
  assert cache is not None
  asked = jax.lax.dynamic_slice_in_dim(positions, first, span.queries, axis=1)
  asked = jnp.tile(asked, (branches, 1))
  return jnp.take_along_axis(hidden, asked[..., None], axis=1), cache
