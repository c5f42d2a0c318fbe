"""A linear autoencoder in closed form, which initializes a VAE's shortcuts.

Latents are the principal components of the patches, turned and scaled as one:

    z = R U^T (x - m) / s + noise,    x' = m + s U R^T z

with the mean m of the patches, their Z leading components U, an orthogonal R
that gives all channels about the same variance, and the s that makes it 1. No
linear map of Z channels loses less (principal component analysis), and latents
lie as far from each other as patches do: an error of the diffusion head costs
what it costs in pixels. A whitened latent (the optimum of the KL divergence
too, Lucas et al., 2019, arXiv 1911.02469) would count what hardly shows as much
as what does.

The noise is where its part in the loss of `training.vae_losses`, which is
s^2 sigma^2 Z / P + w/2 (sigma^2 - log sigma^2) for patches of P values and the
weight w of the KL divergence, is least:

    sigma^2 = w / (w + 2 s^2 Z / P)
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unifluid_jax.models.vae import LOG_VARIANCE_RANGE, to_patches


def patch_moments(
  images: Float[Array, 'n S S 3'], size: int
) -> tuple[Float[Array, ' P'], Float[Array, 'P P']]:
  """Means of the patches and of their outer products with themselves.

  Args:
    images: The images.
    size: Side of a patch in pixels, so that P = 3 size^2.
  """
  patches = to_patches(images, size)
  patches = patches.reshape(-1, patches.shape[-1])
  # Some accelerators would multiply in less than float32.
  outer = jnp.matmul(patches.T, patches, precision=jax.lax.Precision.HIGHEST)
  return patches.mean(0), outer / len(patches)


def linear_start(
  moments: Iterable[tuple[Float[np.ndarray, ' P'], Float[np.ndarray, 'P P']]],
  channels: int,
  kl_weight: float,
) -> dict[str, Float[np.ndarray, '...']]:
  """The shortcuts of a VAE whose other paths start at zero, by name.

  Args:
    moments: What `patch_moments` gave, batch by batch; sums are in float64.
    channels: Z, latent channels.
    kl_weight: w.
  """
  means, outers = (
    np.stack(values).astype(np.float64) for values in zip(*moments, strict=True)
  )
  mean = means.mean(0)
  variances, components = np.linalg.eigh(outers.mean(0) - np.outer(mean, mean))
  leading = components[:, ::-1][:, :channels]
  # A component's sign is arbitrary: what is largest of it is positive.
  largest = leading[np.abs(leading).argmax(0), range(leading.shape[1])]
  scale = np.sqrt(np.maximum(variances, 0)[-channels:].sum() / channels)
  rng = np.random.default_rng(0)
  rotation, _ = np.linalg.qr(rng.standard_normal((channels, channels)))
  into = leading * np.sign(largest) @ rotation[: leading.shape[1]]
  tiny = np.finfo(np.float32).tiny
  cost = 2 * scale**2 * channels / mean.size
  noise = kl_weight / max(kl_weight + cost, tiny)
  log_noise = np.log(max(noise, np.exp(LOG_VARIANCE_RANGE[0])))
  encoder = into / max(scale, tiny)
  start: dict[str, np.ndarray] = {
    'encoder/shortcut/kernel': np.hstack([encoder, 0 * into])[None, None],
    'encoder/shortcut/bias': np.concatenate(
      [-mean @ encoder, np.full(channels, log_noise)]
    ),
    'decoder/shortcut/kernel': scale * into.T[None, None],
    'decoder/shortcut/bias': mean,
  }
  return {k: np.asarray(value, np.float32) for k, value in start.items()}
