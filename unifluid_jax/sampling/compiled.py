"""The compiled programs of a trained model: arrays in, arrays out.

Each is traced once for every shape and every way of sampling, for the mesh that
its arrays lie on.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec
from unifluid_jax.config.sections.sampling import (
  ImageSamplingConfig,
  TextSamplingConfig,
)
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.diffusion.objectives import make_objective
from unifluid_jax.diffusion.solvers import make_solver
from unifluid_jax.masking import tokens_per_step
from unifluid_jax.models import parameters
from unifluid_jax.models.latents import (
  decode_tokens,
  encode_tokens,
  reconstruct,
)
from unifluid_jax.models.parameters import Parameters
from unifluid_jax.models.vae import VAE
from unifluid_jax.sampling import image_decoding as images_lib
from unifluid_jax.sampling import text_decoding as text_lib
from unifluid_jax.sharding.mesh import on_mesh


def _compiled(method: Callable, static: tuple[int, ...]) -> Callable:
  """A method, traced on the mesh of `self`, which holds no arrays."""

  @functools.wraps(method)
  def traced(self, *args):
    return on_mesh(self.mesh, method)(self, *args)

  return jax.jit(traced, static_argnums=static)


_program = functools.partial(_compiled, static=(0,))
_sampler = functools.partial(_compiled, static=(0, 1))


class Samples(NamedTuple):
  """Images as a sampler returns them.

  Attributes:
    images: Pixels, RGB in 0..255.
    tokens: Image tokens in raster order.
    positions: Grid position of the token that was written j-th.
    finite: Whether all tokens and pixels of an image are finite; the pixels of
      an image that is not finite mean nothing.
  """

  images: UInt8[Array, 'n S S 3']
  tokens: Float[Array, 'n N Z']
  positions: Int[Array, 'n N']
  finite: Bool[Array, ' n']


class CompiledSamplers:
  """What a model computes, given its parameters by name.

  Legend: n images or texts, R rows (see `sampling.images`), S pixels along a
  side, N tokens of an image, Z dimensions of a token, T tokens of a text.

  Attributes:
    mesh: Where the arrays lie.
  """

  def __init__(
    self,
    experiment: Experiment,
    spec: ModelSpec,
    raster: bool,
    mesh: Mesh,
  ):
    """Holds structure only.

    Args:
      experiment: The config of the model.
      spec: The model.
      raster: Whether images are written in raster order.
      mesh: Where the arrays lie.
    """
    self.mesh = mesh
    self._experiment = experiment
    self._spec = spec
    self._raster = raster

  @_sampler
  def write_images(
    self,
    sampling: ImageSamplingConfig,
    weights: tuple[Parameters, Parameters],
    prefix: Batch,
    keys: Key[Array, ' n'],
  ) -> Samples:
    """Draws one image after each prefix.

    Args:
      sampling: How images are written.
      weights: Parameters of UniFluid and of the VAE.
      prefix: R prefixes, those of the guidance last.
      keys: One key an image.
    """
    params, vae_params = weights
    model = parameters.unflatten(self._spec.unifluid.graphdef, params)
    config = self._experiment.model
    objective = make_objective(config.objective)
    count = model.tokens.count
    sources = None
    if prefix.source_slots.shape[1]:
      sources = encode_tokens(
        self._vae(vae_params), prefix.source_images, config.patch
      )
    written = images_lib.write_images(
      model,
      make_solver(sampling.solver, objective, sampling.head_steps),
      sampling.guidance,
      sampling.temperature,
      tokens_per_step(count, sampling.steps),
      prefix,
      keys,
      images_lib.draw_positions(keys, count, self._raster),
      sources,
    )
    pixels = self._pixels(vae_params, written.tokens)
    finite = jnp.isfinite(written.tokens).all((1, 2))
    finite &= jnp.isfinite(pixels).all((1, 2, 3))
    return Samples(_to_uint8(pixels), written.tokens, written.positions, finite)

  @functools.partial(_compiled, static=(0, 1, 2))
  def write_texts(
    self,
    sampling: TextSamplingConfig,
    tokenizer: Tokenizer,
    params: Parameters,
    prefix: Batch,
    keys: Key[Array, ' n'],
  ) -> tuple[Int[Array, 'n T'], Bool[Array, ' n']]:
    """Writes one text after each prefix, padded behind its end.

    Args:
      sampling: How texts are written.
      tokenizer: The vocabulary.
      params: Parameters of UniFluid.
      prefix: The prefixes.
      keys: One key a text.

    Returns:
      The tokens, and whether all logits of a text were finite.
    """
    return text_lib.write_texts(
      parameters.unflatten(self._spec.unifluid.graphdef, params),
      sampling,
      prefix,
      keys,
      tokenizer.vocab_size,
      tokenizer.pad_id,
      tokenizer.eos_id,
    )

  @_program
  def decode(
    self, vae_params: Parameters, tokens: Float[Array, 'n N Z']
  ) -> UInt8[Array, 'n S S 3']:
    """The pixels of image tokens in raster order."""
    return _to_uint8(self._pixels(vae_params, tokens))

  @_program
  def reconstruct(
    self, vae_params: Parameters, images: UInt8[Array, 'n S S 3']
  ) -> Float[Array, 'n S S 3']:
    """Images in [-1, 1] after the VAE's encoder (means) and decoder."""
    return reconstruct(self._vae(vae_params), images)

  def _pixels(
    self, vae_params: Parameters, tokens: Float[Array, 'n N Z']
  ) -> Float[Array, 'n S S 3']:
    """Decoded pixels of image tokens, about -1 to 1."""
    return decode_tokens(
      self._vae(vae_params),
      tokens,
      self._experiment.model.patch,
      self._experiment.data.image_size,
    )

  def _vae(self, vae_params: Parameters) -> VAE:
    return parameters.unflatten(self._spec.vae.graphdef, vae_params)


def _to_uint8(pixels: Float[Array, 'n S S 3']) -> UInt8[Array, 'n S S 3']:
  """Pixels in [-1, 1] as 0..255."""
  return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)
