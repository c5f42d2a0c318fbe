"""The training loss: L = L_image + lambda * L_text (UniFluid).

Each term is a sum over valid tokens divided by the count of the whole global
batch, so neither packing nor the number of devices changes it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unifluid_jax import masking
from unifluid_jax.batch import Batch
from unifluid_jax.diffusion.objectives import Noise, Objective
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.models.unifluid import ImageTargets, UniFluid
from unifluid_jax.sharding.logical_axes import constrain
from unifluid_jax.sharding.microbatches import split_rows

CHUNK = 32_768
"""Largest part of the vocabulary whose logits are held at once."""


class Counts(NamedTuple):
  """Numbers of valid targets of a batch."""

  text: Float[Array, '']
  image: Float[Array, '']


def count_targets(
  model: UniFluid, batch: Batch, order: masking.Order
) -> Counts:
  """Counts the text targets and image tokens that have a loss."""
  present = (batch.generated_slots >= 0)[..., None]
  if model.config.decoding == masking.MASKED:
    present = present & ~masking.is_visible(order)
  tokens = jnp.broadcast_to(
    present, (*batch.generated_slots.shape, model.tokens.count)
  )
  return Counts(batch.text_weights.sum(), tokens.sum().astype(jnp.float32))


def text_loss_sum(
  gemma: Gemma,
  hidden: Float[Array, 'B T D'],
  targets: Int[Array, 'B T'],
  weights: Float[Array, 'B T'],
) -> Float[Array, '']:
  """Sum of the cross-entropies of the text targets, in nats.

  Args:
    gemma: Has the text head. A vocabulary above CHUNK is processed in parts,
      which the backward pass recomputes.
    hidden: Hidden states at the text targets.
    targets: The tokens that they predict.
    weights: 1 for a target, 0 where unused.
  """
  chunks = -(-gemma.config.vocab_size // CHUNK)
  if chunks == 1:
    logits = constrain(gemma.logits(hidden), ('rows', None, 'vocab'))
    every = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A comparison, not an index, which would gather the sharded vocabulary.
    own = jnp.arange(every.shape[-1]) == targets[..., None]
    log_probabilities = jnp.where(own, every, 0).sum(-1)
  else:
    log_probabilities = _chunked(gemma, hidden, targets, chunks)
  return -(log_probabilities * weights).sum()


class _RunningSoftmax(NamedTuple):
  """A running log-sum-exp over parts of the vocabulary.

  Attributes:
    top: Largest logit.
    total: Sum of exp(logit - top).
    picked: Logit of the target; 0 before its part.
  """

  top: Float[Array, 'B T']
  total: Float[Array, 'B T']
  picked: Float[Array, 'B T']


def _chunked(
  gemma: Gemma,
  hidden: Float[Array, 'B T D'],
  targets: Int[Array, 'B T'],
  chunks: int,
) -> Float[Array, 'B T']:
  """Computes log-probabilities of the targets by a running log-sum-exp."""
  vocabulary = gemma.embedding.shape[0]
  size = -(-vocabulary // chunks)
  table = gemma.embedding[...].astype(hidden.dtype)
  table = jnp.pad(table, ((0, size * chunks - vocabulary), (0, 0)))
  # Chunk c holds ids c, c + chunks, ...: whole rows of each device. The
  # gradient returns to the table's sharding and adds to that of the inputs.
  table = constrain(table, ('vocab', 'embed'))
  table = constrain(table, ('vocab_share', None))
  parts = constrain(split_rows(table, chunks), (None, 'vocab_share', None))

  @jax.checkpoint
  def look(seen, part):
    chunk, rows = part
    ids = chunk + chunks * jnp.arange(size)
    logits = gemma.logits(hidden, constrain(rows, ('vocab', None)))
    logits = constrain(logits, ('rows', None, 'vocab'))
    logits = jnp.where(ids < vocabulary, logits, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.maximum(seen.top, logits.max(-1)))
    total = seen.total * jnp.exp(seen.top - top)
    total += jnp.exp(logits - top[..., None]).sum(-1)
    own = ids == targets[..., None]
    picked = seen.picked + jnp.where(own, logits, 0).sum(-1)
    return _RunningSoftmax(top, total, picked), None

  zeros = jnp.zeros(targets.shape)
  start = _RunningSoftmax(jnp.full(targets.shape, -jnp.inf), zeros, zeros)
  seen, _ = jax.lax.scan(look, start, (jnp.arange(chunks), parts))
  return seen.picked - seen.top - jnp.log(seen.total)


def image_losses(
  model: UniFluid,
  objective: Objective,
  targets: ImageTargets,
  noise: Noise,
) -> Float[Array, 'B W M']:
  """Diffusion losses of image tokens, each under M noise levels.

  Args:
    model: Has the diffusion head.
    objective: Diffusion objective.
    targets: Hidden states and the tokens they predict.
    noise: M noise levels per token (MAR's diffusion_batch_mul), which share
      one condition. Levels of a token are neighbors, so they stay on the
      device of its row.
  """
  hidden = targets.hidden.astype(jnp.float32)
  hidden = hidden.reshape(-1, hidden.shape[-1])
  tokens = targets.tokens.reshape(-1, targets.tokens.shape[-1])
  hidden = constrain(hidden, ('rows', None))
  sources = targets.sources
  if sources is not None:
    sources = sources.reshape(tokens.shape)
  noise = Noise(noise.level.ravel(), noise.eps.reshape(-1, tokens.shape[-1]))
  repeats = noise.level.size // tokens.shape[0]
  condition = jax.tree.map(
    lambda x: jnp.repeat(x, repeats, axis=0),
    model.head.embed_condition(hidden, sources),
  )

  def predict(x_t, time):
    return model.head(x_t, time, condition)

  loss = objective.loss(predict, jnp.repeat(tokens, repeats, axis=0), noise)
  return loss.reshape(*targets.weights.shape, repeats)


class Losses(NamedTuple):
  """Unweighted mean losses of a batch."""

  image: Float[Array, '']
  text: Float[Array, '']


def losses(
  model: UniFluid,
  objective: Objective,
  batch: Batch,
  tokens: Float[Array, 'B G N Z'],
  order: masking.Order,
  sources: Float[Array, 'B G N Z'] | None,
  noise: Noise,
  counts: Counts,
) -> Losses:
  """Computes both losses of packed rows, divided by global counts.

  Args:
    model: The model.
    objective: Diffusion objective of the image tokens.
    batch: The rows, or a microbatch of them.
    tokens: Tokens of the generated images, raster order.
    order: Decoding order of each image.
    sources: Tokens of their sources; None without source tokens.
    noise: Noise of the image tokens, see `image_losses`; leaves [B ...].
    counts: Targets of the global batch.
  """
  hidden = model.row_hidden_states(batch, tokens, order, sources)
  text = text_loss_sum(
    model.gemma,
    model.text_hidden(hidden, batch.text_slots),
    batch.text_targets,
    batch.text_weights,
  )
  image = jnp.float32(0)
  if batch.generated_slots.shape[1]:
    targets = model.image_targets(hidden, batch, tokens, order, sources)
    every = image_losses(model, objective, targets, noise)
    image = (every * targets.weights[..., None]).sum() / every.shape[-1]
  return Losses(
    image / jnp.maximum(counts.image, 1), text / jnp.maximum(counts.text, 1)
  )
