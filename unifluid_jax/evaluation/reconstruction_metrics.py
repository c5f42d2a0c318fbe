"""How well the VAE keeps images of concepts that training never saw."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.data.emoji.drawing import Drawing, draw, list_drawings
from unifluid_jax.evaluation.measure import Measure, Measures
from unifluid_jax.inference import Model
from unifluid_jax.models.latents import to_signed_unit
from unifluid_jax.training.vae_losses import psnr

MOST_PSNR = 100.0
"""Stands for an error below 1/400 of a gray level, and for none."""


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """Images before and after the VAE.

  Attributes:
    pictures: What was encoded.
    images: What was decoded again.
    psnr: Peak signal-to-noise ratio of each, in dB.
  """

  pictures: tuple[Drawing, ...]
  images: UInt8[np.ndarray, 'n S S 3']
  psnr: Float[np.ndarray, ' n']

  @property
  def measures(self) -> Measures:
    """The mean over the images."""
    mean = float(self.psnr.mean(dtype=np.float64))
    return {'vae_psnr_heldout_db': Measure(mean, len(self.psnr))}


def evaluate_reconstruction(model: Model) -> Reconstruction:
  """Encodes and decodes every untoned drawing of the held-out concepts."""
  emoji = model.experiment.emoji('all')
  emojis = load_catalog().emojis
  pictures = tuple(
    p for p in list_drawings(emoji, 'concept') if not emojis[p.hex].tone
  )
  images = np.stack([draw(p, emoji.image_size) for p in pictures])
  decoded = model.reconstruct(images)
  ratios = np.asarray(
    psnr(to_signed_unit(jnp.asarray(images)), jnp.asarray(decoded))
  )
  ratios = np.minimum(ratios, MOST_PSNR)
  return Reconstruction(pictures, to_pixels(decoded), ratios)


def to_pixels(
  values: Float[np.ndarray, 'n S S 3'],
) -> UInt8[np.ndarray, 'n S S 3']:
  """Maps values from [-1, 1] to 0..255."""
  return np.clip(np.round((values + 1) * 127.5), 0, 255).astype(np.uint8)


def psnr_of(
  wanted: UInt8[np.ndarray, 'n S S 3'], found: UInt8[np.ndarray, 'n S S 3']
) -> Float[np.ndarray, ' n']:
  """Peak signal-to-noise ratio of each image, in dB, at most MOST_PSNR."""
  one, other = (
    to_signed_unit(jnp.asarray(images)) for images in (wanted, found)
  )
  return np.minimum(np.asarray(psnr(one, other)), MOST_PSNR)
