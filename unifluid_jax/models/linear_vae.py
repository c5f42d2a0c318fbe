"""The best linear autoencoder, in closed form: where shortcuts start from.

For a VAE whose encoder and decoder are linear, the optimum is probabilistic
PCA (Lucas et al., 2019, arXiv 1911.02469): channel k of the latents follows
the k-th principal component of the patches. With patches of P values, Z
channels, the variance l_k of component k and the weight w of the KL
divergence, the loss of `training.vae_losses` is, per position,

    1/P sum_k [l_k (1 - a_k b_k)^2 + b_k^2 s_k^2] + const
    + w/Z sum_k 1/2 [a_k^2 l_k + s_k^2 - 1 - log s_k^2]

for an encoder gain a_k, a posterior variance s_k^2 and a decoder gain b_k. It
is least where

    s_k^2 = min(1, w P / (2 Z l_k)),   b_k = sqrt(l_k (1 - s_k^2)),
    a_k = b_k / l_k.
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
  size = mean.size
  # In falling order; components that the patches do not have carry nothing.
  used = min(channels, size)
  variance = np.zeros(channels)
  variance[:used] = np.maximum(variances[::-1][:used], 0)
  directions = np.zeros((size, channels))
  directions[:, :used] = components[:, ::-1][:, :used]
  # An eigenvector's sign is arbitrary; a run repeats on any machine's library.
  largest = np.abs(directions).argmax(0)
  signs = np.sign(directions[largest, np.arange(channels)])
  directions *= np.where(signs == 0, 1, signs)

  least = np.finfo(np.float64).tiny
  noise = kl_weight * size / (2 * channels * np.maximum(variance, least))
  noise = np.minimum(noise, 1)
  decoder = np.sqrt(variance * (1 - noise))
  encoder = np.divide(
    decoder, variance, out=np.zeros(channels), where=variance > 0
  )
  log_noise = np.log(np.maximum(noise, np.exp(LOG_VARIANCE_RANGE[0])))
  to_mean = directions * encoder
  start: dict[str, np.ndarray] = {
    'encoder/shortcut/kernel': np.concatenate(
      [to_mean, np.zeros_like(to_mean)], axis=1
    )[None, None],
    'encoder/shortcut/bias': np.concatenate([-mean @ to_mean, log_noise]),
    'decoder/shortcut/kernel': (directions * decoder).T[None, None],
    'decoder/shortcut/bias': mean,
  }
  return {k: np.asarray(value, np.float32) for k, value in start.items()}
