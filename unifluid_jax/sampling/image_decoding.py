"""Decodes images: prefill, decoding steps over a KV cache, a diffusion head.

A decoding step decodes m tokens at once. If decoding is causal, the last token
is fed m times, each time with another target position (see
`masking.decoding_mask`), so all inputs are of the kind seen in training.
Sequential decoding is m = 1 throughout.

Legend: B images, R rows (2 B with guidance: conditional first), N tokens of an
image, Z channels of a token, m tokens of a step.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unifluid_jax.batch import Batch
from unifluid_jax.diffusion.guidance import Guidance
from unifluid_jax.diffusion.solvers import Solver
from unifluid_jax.models.unifluid import UniFluid
from unifluid_jax.sampling.canvas import KnownTokens
from unifluid_jax.sampling.decoding_step import (
  DecodeState,
  Step,
  hidden_states,
  target_sources,
  to_raster,
)
from unifluid_jax.sampling.prefill import prefill


class TokenSamples(NamedTuple):
  """Images as tokens.

  Attributes:
    tokens: Tokens in raster order.
    positions: Grid position of the token decoded j-th.
  """

  tokens: Float[Array, 'B N Z']
  positions: Int[Array, 'B N']


def _spans(counts: tuple[int, ...]) -> Iterator[tuple[Step, tuple[int, ...]]]:
  """Yields runs of equal steps, each step by the tokens decoded before it."""
  firsts = [0, *itertools.accumulate(counts)][:-1]
  kept, is_first = (1, *counts[:-1]), [first == 0 for first in firsts]
  steps = map(Step, kept, counts, is_first)
  for step, group in itertools.groupby(
    zip(steps, firsts, strict=True), lambda pair: pair[0]
  ):
    yield step, tuple(first for _, first in group)


def draw_positions(
  keys: Key[Array, ' B'], tokens: int, raster: bool
) -> Int[Array, 'B N']:
  """Draws the decoding order of each image: random, or raster.

  Args:
    keys: One key per image.
    tokens: N.
    raster: Whether the model decodes in raster order.
  """
  order = jnp.broadcast_to(jnp.arange(tokens), (keys.shape[0], tokens))
  if raster:
    return order
  return jax.vmap(jax.random.permutation)(
    jax.vmap(jax.random.fold_in)(keys, jnp.full(keys.shape, tokens)), order
  )


def decode_images(
  model: UniFluid,
  solver: Solver,
  guidance: Guidance,
  temperature: float,
  counts: tuple[int, ...],
  prefix: Batch,
  keys: Key[Array, ' B'],
  positions: Int[Array, 'B N'],
  sources: Float[Array, 'R E N Z'] | None = None,
  known: KnownTokens | None = None,
) -> TokenSamples:
  """Decodes one image after each prefix.

  Args:
    model: The model.
    solver: Solver of the diffusion head.
    guidance: Guidance; with a scale other than 1 the prefixes are R = 2 B,
      the conditional ones first, then as many unconditional ones.
    temperature: Scale of the noise.
    counts: Tokens of each decoding step.
    prefix: Prefixes, padded on the left.
    keys: One key per image.
    positions: Decoding order of each image.
    sources: Tokens of the source images of edits, if any; E = 1.
    known: Tokens to keep, if any; they take the place of sampled ones.
  """
  state = prefill(model, prefix, model.tokens.count)
  total = positions.shape[1]

  def advance(images: DecodeState, first, step: Step) -> DecodeState:
    hidden, cache = hidden_states(model, images, first, step)
    slots = first + jnp.arange(step.queries)
    token_keys = jax.vmap(
      lambda key: jax.vmap(lambda slot: jax.random.fold_in(key, slot))(slots)
    )(keys)
    fraction = (first + step.queries) / total
    tokens = _draw_tokens(
      model,
      solver,
      guidance,
      temperature,
      fraction,
      hidden,
      target_sources(images, first, step),
      token_keys,
    )
    if known is not None:
      tokens = known.keep(
        tokens, jax.lax.dynamic_slice_in_dim(positions, first, step.queries, 1)
      )
    tokens = jax.lax.dynamic_update_slice(images.tokens, tokens, (0, first, 0))
    return images._replace(cache=cache, tokens=tokens)

  def advance_all(images: DecodeState, firsts, step: Step) -> DecodeState:
    return jax.lax.scan(
      lambda images, first: (advance(images, first, step), None),
      images,
      jnp.array(firsts),
    )[0]

  if sources is not None:
    present = (prefix.source_slots >= 0)[..., None, None]
    sources = jnp.where(present, sources, 0.0)[:, 0]
  empty = jnp.zeros((*positions.shape, model.tokens.dim))
  images = DecodeState(
    state.valid, state.length, positions, sources, state.cache, empty
  )
  for step, firsts in _spans(counts):
    if step.is_first:
      images = advance(images, 0, step)
    else:
      images = advance_all(images, firsts, step)
  return TokenSamples(to_raster(images), positions)


def _draw_tokens(
  model: UniFluid,
  solver: Solver,
  guidance: Guidance,
  temperature: float,
  fraction: Float[Array, ''] | float,
  hidden: Float[Array, 'R m D'],
  sources: Float[Array, 'R m Z'] | None,
  keys: Key[Array, 'B m'],
) -> Float[Array, 'B m Z']:
  """Samples a step's tokens with the diffusion head."""

  def flat(values):
    return values.reshape(-1, values.shape[-1])

  condition = model.head.embed_condition(
    flat(hidden), None if sources is None else flat(sources)
  )

  def predict(x_t, time):
    return model.head(x_t, time, condition)

  if hidden.shape[0] != keys.shape[0]:
    predict = guidance.guide(predict, fraction)
  tokens = solver.sample(
    predict, keys.reshape(-1), model.tokens.dim, temperature
  )
  return tokens.reshape(*keys.shape, -1)
