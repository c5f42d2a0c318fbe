"""Decodes texts: prefill, then one token per step over a KV cache."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from unifluid_jax.batch import Batch
from unifluid_jax.config.sections.sampling import TextSamplingConfig
from unifluid_jax.models.unifluid import UniFluid
from unifluid_jax.sampling.prefill import prefill


def choose(
  logits: Float[Array, 'B V'],
  keys: Key[Array, ' B'],
  config: TextSamplingConfig,
) -> Int[Array, ' B']:
  """Draws each row's next token."""
  if config.temperature == 0:
    return jnp.argmax(logits, axis=-1)
  # Subtract the maximum and divide by a normal number: no overflow, no 0 / 0.
  least = float(jnp.finfo(jnp.float32).tiny)
  logits = logits - logits.max(axis=-1, keepdims=True)
  logits = logits / max(config.temperature, least)
  if config.top_k:
    kth = jax.lax.top_k(logits, min(config.top_k, logits.shape[-1]))[0][:, -1:]
    logits = jnp.where(logits < kth, -jnp.inf, logits)
  if config.top_p < 1:
    ranked = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = jnp.where(before < config.top_p, ranked, jnp.inf)
    logits = jnp.where(
      logits < kept.min(axis=-1, keepdims=True), -jnp.inf, logits
    )
  return jax.vmap(jax.random.categorical)(keys, logits)


def decode_texts(
  model: UniFluid,
  config: TextSamplingConfig,
  prefix: Batch,
  keys: Key[Array, ' B'],
  pieces: int,
  pad_id: int,
  eos_id: int,
) -> tuple[Int[Array, 'B T'], Bool[Array, ' B']]:
  """Decodes one text after each prefix, until all have ended.

  Args:
    model: The model.
    config: Sampling config.
    prefix: Prefixes, padded on the left.
    keys: One key per text.
    pieces: Size of the vocabulary; further rows of the embedding table are
      padding and never sampled.
    pad_id: Token that fills a text after its end.
    eos_id: Token that ends a text; not part of the result.

  Returns:
    Tokens, T = `config.max_tokens`, padded after the end; and whether all
    logits of a row's tokens were finite.
  """
  state = prefill(model, prefix, config.max_tokens)
  rows, length = state.valid.shape
  shown = jnp.pad(
    state.valid, ((0, 0), (0, config.max_tokens)), constant_values=True
  )
  columns = jnp.arange(shown.shape[1])

  def ended(carry):
    step, _, _, done, _, _ = carry
    return (step < config.max_tokens) & ~done.all()

  def body(carry):
    step, cache, last, done, texts, finite = carry
    step_keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
    logits = model.gemma.logits(last)
    finite = finite & (done | jnp.isfinite(logits[:, :pieces]).all(-1))
    logits = jnp.where(jnp.arange(logits.shape[-1]) < pieces, logits, -jnp.inf)
    token = choose(logits, step_keys, config)
    done = done | (token == eos_id)
    token = jnp.where(done, pad_id, token)
    texts = jax.lax.dynamic_update_slice(texts, token[:, None], (0, step))
    mask = (shown & (columns <= length + step))[:, None]
    hidden, cache = model(
      model.gemma.embed(token[:, None]),
      (state.length + step)[:, None],
      mask,
      cache,
      length + step,
    )
    return step + 1, cache, hidden[:, 0], done, texts, finite

  texts = jnp.full((rows, config.max_tokens), pad_id)
  done = jnp.zeros(rows, bool)
  finite = jnp.ones(rows, bool)
  carry = (jnp.int32(0), state.cache, state.last, done, texts, finite)
  *_, texts, finite = jax.lax.while_loop(ended, body, carry)
  return texts, finite
