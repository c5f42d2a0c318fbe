"""Model FLOPs of a training step, by formula.

A multiply-add is 2 FLOPs; the backward pass costs twice the forward pass, so a
trained parameter costs 6 per slot that it is applied to (Kaplan et al., arXiv
2001.08361). Attention scores and their products cost 12 L S H h per layer and
row of L slots; masked parts are counted, since dense attention computes them.
The embedding look-up costs nothing, the text head counts at text targets only,
the diffusion head at every noise level of a token. Rematerialisation is not
model work, nor is the frozen VAE, whose encoder is small beside the rest.
"""

from unifluid_jax.experiment import Experiment


def step_flops(experiment: Experiment) -> float:
  """Model FLOPs of one step of the full batch, forward and backward."""
  data, model = experiment.data, experiment.model
  images_written = data.rows * data.row.generated_images
  images_read = data.rows * data.row.understanding_images
  tokens_written = images_written * experiment.grid**2
  return (
    _decoder(experiment)
    + images_read * _encoder(experiment)
    + 6 * tokens_written * experiment.training.repeats * _head(experiment)
    + 6 * tokens_written * model.head.width * model.gemma.width
  )


def _decoder(experiment: Experiment) -> float:
  gemma, data = experiment.model.gemma, experiment.data
  attention = (
    gemma.width * gemma.head_dim * (2 * gemma.heads + 2 * gemma.kv_heads)
  )
  layer = attention + 3 * gemma.width * gemma.mlp_dim
  slots = data.rows * data.row.length
  scores = 12 * data.row.length * gemma.heads * gemma.head_dim
  targets = data.rows * data.row.text_targets
  return (
    slots * gemma.layers * (6 * layer + scores)
    + 6 * targets * gemma.vocab_size * gemma.width
  )


def _encoder(experiment: Experiment) -> float:
  """One image through the encoder and the connector."""
  encoder, width = experiment.model.encoder, experiment.model.gemma.width
  layer = 4 * encoder.width**2 + 2 * encoder.width * encoder.mlp_dim
  scores = 12 * encoder.tokens * encoder.width
  patches = 3 * encoder.patch_size**2 * encoder.width
  return encoder.tokens * (
    encoder.layers * (6 * layer + scores)
    + 6 * (patches + encoder.width * width)
  )


def _head(experiment: Experiment) -> float:
  """Parameters that one noise level of one token goes through."""
  head, z = experiment.model.head, experiment.token_dim
  time = (256 + head.width) * head.width
  blocks = head.depth * 5 * head.width**2
  return time + blocks + 2 * head.width**2 + 2 * z * head.width
