"""Random keys of samples: functions of (seed, prompt, sample) alone.

Neither the batch nor the process that draws a sample changes its key.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def sample_keys(
  seed: int, prompts: Sequence[int], samples: Sequence[int]
) -> Key[Array, ' B']:
  """Returns one key per row.

  Args:
    seed: Seed of the sampling run.
    prompts: Index of each row's prompt.
    samples: Index of each row's sample among those of its prompt.
  """

  def key(prompt, sample):
    return jax.random.fold_in(
      jax.random.fold_in(jax.random.key(seed), prompt), sample
    )

  return jax.vmap(key)(jnp.asarray(prompts), jnp.asarray(samples))
