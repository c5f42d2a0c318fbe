"""The Markov chain behind the `ddpm` objective, and the terms of its bound.

Denoising diffusion (Ho et al., 2020, arXiv 2006.11239) with the cosine
schedule and the learned variance of improved DDPM (Nichol and Dhariwal, 2021,
arXiv 2102.09672), as MAR uses it.

Legend: n tokens, Z channels of a token, T timesteps of a chain.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

TIMESTEPS = 1000
"""Noise levels that a head is trained at."""

FIRST_TIMESTEP = 980
"""Where sampling starts; alpha is 0.03.

MAR starts at 999, where alpha is 5e-5, and x_0 = (x_t - sigma eps) / alpha
makes 20,000 times the head's error of it: samples of a small head, trained
for 2,000 steps, ended hundreds of standard deviations away.
"""

_MAX_BETA = 0.999
_COSINE_OFFSET = 0.008
# The decoder of Ho et al. is made for 8-bit images in [-1, 1].
_HALF_BIN = 1 / 255
_EDGE = 0.999
_MIN_PROBABILITY = 1e-12
# Further out, probabilities are far below _MIN_PROBABILITY.
_FURTHEST = 16.0


class Chain(NamedTuple):
  """Noise levels x_t = alpha x_0 + sigma eps, from data to noise.

  The posterior q(x_{t-1} | x_t, x_0) has the mean
  `x_0_weight * x_0 + x_t_weight * x_t`. Its variance is zero at t = 0; the
  logarithm there is that of t = 1.
  """

  alpha: Float[Array, '*T']
  sigma: Float[Array, '*T']
  log_beta: Float[Array, '*T']
  log_variance: Float[Array, '*T']
  x_0_weight: Float[Array, '*T']
  x_t_weight: Float[Array, '*T']


def cosine_alpha_bar() -> Float[np.ndarray, ' 1000']:
  """alpha^2 of the cosine schedule (improved DDPM, equation 17)."""
  u = np.arange(TIMESTEPS + 1) / TIMESTEPS
  f = np.cos((u + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
  return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], _MAX_BETA))


def make_chain(alpha_bar: Float[np.ndarray, ' T']) -> Chain:
  """The chain through noise levels (Ho et al., equation 7).

  Args:
    alpha_bar: alpha^2 at two or more timesteps, from data to noise. Some
      levels of a longer chain make a respaced one with betas of its own.
  """
  previous = np.append(1.0, alpha_bar[:-1])
  beta = 1 - alpha_bar / previous
  variance = beta * (1 - previous) / (1 - alpha_bar)
  values = (
    np.sqrt(alpha_bar),
    np.sqrt(1 - alpha_bar),
    np.log(beta),
    np.log(np.append(variance[1], variance[1:])),
    np.sqrt(previous) * beta / (1 - alpha_bar),
    np.sqrt(1 - beta) * (1 - previous) / (1 - alpha_bar),
  )
  return Chain(*(jnp.asarray(value, jnp.float32) for value in values))


def spaced_timesteps(
  count: int, *, with_0: bool = True
) -> Int[np.ndarray, ' S']:
  """`count` timesteps, evenly spaced from FIRST_TIMESTEP down to 0.

  Args:
    count: S, at most FIRST_TIMESTEP, with 0 one more.
    with_0: Whether 0 is the last of them, or would be the next one.
  """
  t = np.linspace(FIRST_TIMESTEP, 0, count, endpoint=with_0)
  return t.round().astype(np.int64)


def learned_log_variance(
  logits: Float[Array, 'n Z'],
  log_beta: Float[Array, '*level'],
  log_variance: Float[Array, '*level'],
) -> Float[Array, 'n Z']:
  """log variance between the posterior's (-1) and beta (1).

  Improved DDPM, equation 15, with the fraction (logits + 1) / 2.
  """
  fraction = (logits + 1) / 2
  return fraction * log_beta + (1 - fraction) * log_variance


def gaussian_kl(
  difference: Float[Array, 'n Z'],
  log_variance: Float[Array, 'n 1'],
  log_variance_hat: Float[Array, 'n Z'],
) -> Float[Array, 'n Z']:
  """KL(p || p_hat) of Gaussians whose means differ by `difference`, in nats."""
  log_ratio = log_variance - log_variance_hat
  squared = difference**2 * jnp.exp(-log_variance_hat)
  return 0.5 * (jnp.exp(log_ratio) - 1 - log_ratio + squared)


def approximate_normal_cdf(z: Float[Array, 'n Z']) -> Float[Array, 'n Z']:
  """MAR's approximation of the normal distribution function.

  It is (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2 (Page, 1977;
  `approx_standard_normal_cdf` in MAR's diffusion/diffusion_utils.py), off by
  1.8e-4 at most. It is computed as a sigmoid, which keeps the lower tail in
  float32.
  """
  z = jnp.clip(z, -_FURTHEST, _FURTHEST)
  return jax.nn.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))


def discretized_nll(
  x: Float[Array, 'n Z'],
  mean: Float[Array, 'n Z'],
  log_variance: Float[Array, 'n Z'],
) -> Float[Array, 'n Z']:
  """-log probability of x's bin of 2/255 under a Gaussian, in nats.

  The bins at -1 and 1 reach to infinity (Ho et al., equation 13). Latents are
  no 8-bit images, but MAR applies it to them as they are. The formula is that
  of MAR's `discretized_gaussian_log_likelihood`, approximation included. The
  exact distribution function gives the same to 0.3 % within three standard
  deviations, and 13 % less at six.
  """
  inverse_std = jnp.exp(-0.5 * log_variance)
  low = (x - mean - _HALF_BIN) * inverse_std
  high = (x - mean + _HALF_BIN) * inverse_std
  # Mirrored into the lower tail, where float32 can tell the two apart.
  distance = -jnp.abs(x - mean)
  cdf = approximate_normal_cdf
  inside = cdf((distance + _HALF_BIN) * inverse_std) - cdf(
    (distance - _HALF_BIN) * inverse_std
  )
  probability = jnp.where(
    x < -_EDGE, cdf(high), jnp.where(x > _EDGE, cdf(-low), inside)
  )
  return -jnp.log(jnp.maximum(probability, _MIN_PROBABILITY))
