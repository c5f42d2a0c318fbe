"""The compiled samplers of a trained model: arrays in, arrays out.

Each is traced once per shape and sampling config, for the mesh that its arrays
lie on.
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
from unifluid_jax.sampling import canvas as canvas_lib
from unifluid_jax.sampling import image_decoding as images_lib
from unifluid_jax.sampling import text_decoding as text_lib
from unifluid_jax.sampling.canvas import Canvas, KnownTokens
from unifluid_jax.sharding.mesh import on_mesh


def _compiled(method: Callable, static: tuple[int, ...]) -> Callable:
  """Jits a method on the mesh of `self`, which holds no arrays."""

  @functools.wraps(method)
  def traced(self, *args):
    return on_mesh(self.mesh, method)(self, *args)

  return jax.jit(traced, static_argnums=static)


_vae_function = functools.partial(_compiled, static=(0,))
_image_sampler = functools.partial(_compiled, static=(0, 1))
_text_sampler = functools.partial(_compiled, static=(0, 1, 2))


class Samples(NamedTuple):
  """Images, as a sampler returns them.

  Attributes:
    images: Pixels, RGB in 0..255.
    tokens: Image tokens in raster order.
    positions: Grid position of the token decoded j-th.
    finite: Whether all tokens and pixels of an image are finite.
  """

  images: UInt8[Array, 'n S S 3']
  tokens: Float[Array, 'n N Z']
  positions: Int[Array, 'n N']
  finite: Bool[Array, ' n']


class CompiledSamplers:
  """Samplers of a model, which take its parameters by name.

  Legend: n images or texts, R rows (see `sampling.image_decoding`), S pixels
  along a side, N tokens of an image, Z dimensions of a token, T tokens of a
  text.

  Attributes:
    mesh: Mesh of the arrays.
  """

  def __init__(
    self,
    experiment: Experiment,
    spec: ModelSpec,
    raster: bool,
    mesh: Mesh,
  ):
    """Stores the structure; parameters are arguments of the methods.

    Args:
      experiment: The config of the model.
      spec: Spec of the model.
      raster: Whether images are decoded in raster order.
      mesh: Mesh of the arrays.
    """
    self.mesh = mesh
    self._experiment = experiment
    self._spec = spec
    self._raster = raster

  @_image_sampler
  def generate_images(
    self,
    sampling: ImageSamplingConfig,
    weights: tuple[Parameters, Parameters],
    prefix: Batch,
    keys: Key[Array, ' n'],
    canvas: Canvas | None = None,
  ) -> Samples:
    """Samples one image after each prefix.

    Args:
      sampling: Sampling config.
      weights: Parameters of UniFluid and of the VAE.
      prefix: R prefixes; those of the unconditional branch come last.
      keys: One key per image.
      canvas: Images to paint on; None starts from nothing.
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
    positions = images_lib.draw_positions(keys, count, self._raster)
    known = None
    if canvas is not None:
      known = self._known_tokens(vae_params, canvas)
      if not self._raster:
        positions = canvas_lib.kept_first(positions, known.kept)
    samples = images_lib.decode_images(
      model,
      make_solver(sampling.solver, objective, sampling.head_steps),
      sampling.guidance,
      sampling.temperature,
      tokens_per_step(count, sampling.steps),
      prefix,
      keys,
      positions,
      sources,
      known,
    )
    pixels = self._pixels(vae_params, samples.tokens)
    finite = jnp.isfinite(samples.tokens).all((1, 2))
    finite &= jnp.isfinite(pixels).all((1, 2, 3))
    images = _to_uint8(pixels)
    if canvas is not None:
      images = jnp.where(canvas.redraw[..., None], images, canvas.images)
    return Samples(images, samples.tokens, samples.positions, finite)

  @_text_sampler
  def generate_texts(
    self,
    sampling: TextSamplingConfig,
    tokenizer: Tokenizer,
    params: Parameters,
    prefix: Batch,
    keys: Key[Array, ' n'],
  ) -> tuple[Int[Array, 'n T'], Bool[Array, ' n']]:
    """Samples one text after each prefix, padded after its end.

    Args:
      sampling: Sampling config.
      tokenizer: The vocabulary.
      params: Parameters of UniFluid.
      prefix: The prefixes.
      keys: One key per text.

    Returns:
      Tokens, and whether all logits of a text were finite.
    """
    return text_lib.decode_texts(
      parameters.unflatten(self._spec.unifluid.graphdef, params),
      sampling,
      prefix,
      keys,
      tokenizer.vocab_size,
      tokenizer.pad_id,
      tokenizer.eos_id,
    )

  @_vae_function
  def decode(
    self, vae_params: Parameters, tokens: Float[Array, 'n N Z']
  ) -> UInt8[Array, 'n S S 3']:
    """Decodes image tokens in raster order to pixels."""
    return _to_uint8(self._pixels(vae_params, tokens))

  @_vae_function
  def reconstruct(
    self, vae_params: Parameters, images: UInt8[Array, 'n S S 3']
  ) -> Float[Array, 'n S S 3']:
    """Encodes (means) and decodes images; returns values in [-1, 1]."""
    return reconstruct(self._vae(vae_params), images)

  def _pixels(
    self, vae_params: Parameters, tokens: Float[Array, 'n N Z']
  ) -> Float[Array, 'n S S 3']:
    """Decodes image tokens to pixels in about [-1, 1]."""
    return decode_tokens(
      self._vae(vae_params),
      tokens,
      self._experiment.model.patch,
      self._experiment.data.image_size,
    )

  def _known_tokens(
    self, vae_params: Parameters, canvas: Canvas
  ) -> KnownTokens:
    tokens = encode_tokens(
      self._vae(vae_params),
      canvas.images[:, None],
      self._experiment.model.patch,
    )
    kept = canvas_lib.kept_tokens(canvas.redraw, self._experiment.grid)
    return KnownTokens(tokens[:, 0], kept)

  def _vae(self, vae_params: Parameters) -> VAE:
    return parameters.unflatten(self._spec.vae.graphdef, vae_params)


def _to_uint8(pixels: Float[Array, 'n S S 3']) -> UInt8[Array, 'n S S 3']:
  """Maps pixels from [-1, 1] to 0..255."""
  return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)
