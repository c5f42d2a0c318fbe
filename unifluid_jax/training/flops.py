"""FLOPs of a training step, by formula.

A multiply-add is 2 FLOPs. A parameter that a slot goes through costs 2 FLOPs
forward and 4 backward (Kaplan et al., arXiv 2001.08361), attention 4 S H h per
slot and layer forward for a row of S slots; masked parts are counted, since
dense attention computes them. The embedding look-up costs nothing, the text
head counts at text targets only, the diffusion head at every noise level of a
token.

Model FLOPs are those of the task, the measure behind MFU: what is trained
forward and backward, what is frozen without the gradient of its weights, and
forward alone where nothing before it is trained. Places of a batch that hold
nothing, such as that of an image in a row that has none, are computed and so
counted as full. Hardware FLOPs are all that is computed: the frozen VAE, and
what the backward pass computes again.
"""

from typing import NamedTuple

import jax.numpy as jnp

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.models.fused_attention import fits
from unifluid_jax.models.vae import VAEConfig
from unifluid_jax.training.losses import CHUNK


class Forward(NamedTuple):
  """FLOPs of one forward pass over the batch of a step.

  Attributes:
    decoder: Products with the weights of the decoder's layers.
    attention: Attention scores and sums of the decoder.
    logits: The text head.
    encoder: The image encoder and the connector.
    head: The diffusion head.
    vae: The VAE's encoder.
  """

  decoder: float
  attention: float
  logits: float
  encoder: float
  head: float
  vae: float


def forward_flops(experiment: Experiment) -> Forward:
  """FLOPs of the parts of a step, one forward pass over the full batch."""
  data, gemma = experiment.data, experiment.model.gemma
  slots = data.batch_rows * data.row_capacity.length
  written = data.batch_rows * data.row_capacity.generated_images
  tokens = written * experiment.grid**2
  targets = data.batch_rows * data.row_capacity.text_targets
  coded = written + data.batch_rows * data.row_capacity.source_images
  head = head_parameters(experiment) * experiment.training.diffusion_batch_mul
  source = experiment.token_dim * bool(data.row_capacity.source_images)
  inputs = (experiment.token_dim + source) * gemma.width
  condition = experiment.model.head.width * (gemma.width + source)
  return Forward(
    decoder=2 * slots * decoder_parameters(experiment) + 2 * tokens * inputs,
    attention=slots * attention_flops(experiment, data.row_capacity.length),
    logits=2 * targets * gemma.vocab_size * gemma.width,
    encoder=data.batch_rows
    * data.row_capacity.understanding_images
    * _encoder(experiment),
    head=2 * tokens * (head + condition),
    vae=coded * vae_encoder_flops(experiment.vae, experiment.data.image_size),
  )


def step_flops(experiment: Experiment) -> float:
  """Model FLOPs of one step of the full batch."""
  forward, passes = forward_flops(experiment), _passes(experiment)
  attention = 3 if passes.decoder > 1 else 1  # it has no weights
  return (
    passes.decoder * forward.decoder
    + attention * forward.attention
    + passes.logits * forward.logits
    + passes.encoder * forward.encoder
    + passes.head * forward.head
  )


def hardware_flops(experiment: Experiment) -> float:
  """FLOPs that a step really computes."""
  forward, model = forward_flops(experiment), experiment.model
  passes = _passes(experiment)
  again = {'none': 0.0, 'dots': 0.0, 'sublayers': 1.0, 'full': 1.0}[model.remat]
  gemma, length = model.gemma, experiment.data.row_capacity.length
  computed_again = 0.0
  if passes.decoder > 1:
    computed_again += again * forward.decoder
    if model.remat == 'sublayers':
      # The last product of attention and of the MLP is kept.
      last = gemma.width * (gemma.heads * gemma.head_dim + gemma.mlp_dim)
      slots = experiment.data.batch_rows * length
      computed_again -= 2 * slots * gemma.layers * last
    fused = model.fused_attention and fits(
      jnp.dtype(model.dtype),
      length,
      gemma.heads,
      gemma.kv_heads,
      gemma.head_dim,
      experiment.mesh.tensor,
    )
    if fused:
      computed_again += forward.attention / 2  # the scores, by the kernel
    # No policy keeps attention, whose products have batch axes; what the kernel
    # gives is needed again only for the weights that it is multiplied with.
    if model.remat == 'full' or (
      model.remat != 'none' and not (fused and passes.decoder == 2)
    ):
      computed_again += forward.attention
  if passes.encoder > 1:
    computed_again += again * forward.encoder
  if model.head.remat in ('sublayers', 'full') and passes.head > 1:
    computed_again += forward.head
  if model.gemma.vocab_size > CHUNK and passes.logits > 1:
    computed_again += forward.logits
  return step_flops(experiment) + computed_again + forward.vae


class _Passes(NamedTuple):
  """FLOPs of each part's products with weights, in forward passes.

  3 with the gradients of weights and activations; 2 for a frozen part before
  which something is trained; 1 for one that no gradient goes through.
  """

  decoder: int
  logits: int
  encoder: int
  head: int


def _passes(experiment: Experiment) -> _Passes:
  def trains(*names: str) -> bool:
    return not all(map(experiment.init.is_frozen, names))

  def count(trained: bool, before: bool) -> int:
    return 3 if trained else 2 if before else 1

  encoder = trains('encoder/stack/blocks/mlp/up')
  embedding, decoder = 'gemma/embedding', trains('gemma/stack/blocks/mlp/down')
  inputs = encoder or trains(embedding, 'connector', 'token_in')
  return _Passes(
    decoder=count(decoder, inputs),
    # The embedding table, transposed.
    logits=count(trains(embedding), decoder or inputs),
    encoder=count(encoder, False),
    head=count(trains('head/blocks/blocks/up/kernel'), decoder or inputs),
  )


def decoder_parameters(experiment: Experiment) -> float:
  """Weights of the decoder's layers that a slot goes through."""
  gemma = experiment.model.gemma
  attention = (
    gemma.width * gemma.head_dim * (2 * gemma.heads + 2 * gemma.kv_heads)
  )
  return gemma.layers * (attention + 3 * gemma.width * gemma.mlp_dim)


def attention_flops(experiment: Experiment, slots: int) -> float:
  """FLOPs of one slot that attends to `slots`, in all layers."""
  gemma = experiment.model.gemma
  return 4 * gemma.layers * slots * gemma.heads * gemma.head_dim


def _encoder(experiment: Experiment) -> float:
  """One image through the encoder and the connector."""
  encoder, width = experiment.model.encoder, experiment.model.gemma.width
  layer = 4 * encoder.width**2 + 2 * encoder.width * encoder.mlp_dim
  scores = 4 * encoder.tokens * encoder.width
  patches = 3 * encoder.patch_size**2 * encoder.width
  return encoder.tokens * (
    encoder.layers * (2 * layer + scores)
    + 2 * (patches + encoder.width * width)
  )


def head_parameters(experiment: Experiment) -> float:
  """Weights that one noise level of one token goes through."""
  head, z = experiment.model.head, experiment.token_dim
  time = (256 + head.width) * head.width
  blocks = head.depth * 5 * head.width**2
  return time + blocks + 2 * head.width**2 + 2 * z * head.width


def vae_encoder_flops(config: VAEConfig, side: int) -> float:
  """One image of `side` x `side` pixels through the VAE's encoder."""
  grid = side // config.patch_size
  width = config.widths[0]
  total = _conv(grid, 3 * config.patch_size**2, width)
  for level, wider in enumerate(config.widths):
    attends = level in config.attention_levels
    for _ in range(config.encoder_blocks):
      total += _residual(grid, width, wider) + attends * _attend(grid, wider)
      width = wider
    if level < len(config.widths) - 1:
      grid //= 2
      total += _conv(grid, width, width)
  total += _middle(config, grid, width)
  return total + _conv(grid, width, 2 * config.latent_channels)


def vae_decoder_flops(config: VAEConfig, side: int) -> float:
  """One image of `side` x `side` pixels out of the VAE's decoder."""
  grid, width = side // config.stride, config.widths[-1]
  total = _conv(grid, config.latent_channels, width)
  total += _middle(config, grid, width)
  for level, narrower in enumerate(config.widths[::-1]):
    for _ in range(config.decoder_blocks):
      total += _residual(grid, width, narrower)
      width = narrower
    if level < len(config.widths) - 1:
      grid *= 2
      total += _conv(grid, width, width)
  return total + _conv(grid, width, 3 * config.patch_size**2)


def _conv(grid: int, inputs: int, outputs: int, size: int = 3) -> float:
  return 2.0 * grid**2 * size**2 * inputs * outputs


def _residual(grid: int, inputs: int, outputs: int) -> float:
  shortcut = _conv(grid, inputs, outputs, 1) if inputs != outputs else 0
  return _conv(grid, inputs, outputs) + _conv(grid, outputs, outputs) + shortcut


def _attend(grid: int, width: int) -> float:
  return 4 * _conv(grid, width, width, 1) + 4.0 * grid**4 * width


def _middle(config: VAEConfig, grid: int, width: int) -> float:
  attention = _attend(grid, width) if config.mid_attention else 0
  return 2 * _residual(grid, width, width) + attention
