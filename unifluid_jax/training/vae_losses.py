"""The VAE's loss: reconstruction plus a little of the KL divergence.

A posterior's KL divergence to N(0, I) (Kingma & Welling, 2014, arXiv
1312.6114, appendix B) keeps the latents at unit scale and the decoder smooth
under the posterior's noise. There is no adversarial and no perceptual term:
both need pretrained or extra networks.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from unifluid_jax.config.sections.vae_training import VAELossConfig
from unifluid_jax.models.vae import VAE, Moments


def kl_divergence(posterior: Moments) -> Float[Array, '']:
  """Mean KL divergence from N(0, 1), in nats per latent."""
  mean, logvar = posterior
  return 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)


def psnr(
  images: Float[Array, 'n S S 3'], decoded: Float[Array, 'n S S 3']
) -> Float[Array, ' n']:
  """Peak signal-to-noise ratio of each image, in dB, after clipping.

  Args:
    images: The originals, in [-1, 1].
    decoded: What the decoder made of them.
  """
  error = (jnp.clip(decoded, -1, 1) - images) / 2
  return -10 * jnp.log10(jnp.mean(jnp.square(error), axis=(1, 2, 3)))


def vae_loss(
  vae: VAE,
  images: Float[Array, 'n S S 3'],
  key: PRNGKeyArray,
  config: VAELossConfig,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Loss of a batch of images in [-1, 1], and its metrics.

  Args:
    vae: The model.
    images: What to encode and to decode again.
    key: For the posterior's noise.
    config: Weights of the loss.
  """
  posterior = vae.encode(images)
  decoded = vae.decode(posterior.sample(key))
  reconstruction = jnp.mean(jnp.square(decoded - images))
  kl = kl_divergence(posterior)
  metrics = {
    'reconstruction': reconstruction,
    'kl': kl,
    'psnr': jnp.mean(psnr(images, decoded)),
  }
  return reconstruction + config.kl_weight * kl, metrics
