"""Random keys of samples: functions of (seed, prompt, sample), of nothing else.

Neither the batch that a sample is drawn in nor the process that draws it
changes it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def sample_keys(
  seed: int, prompts: Sequence[int], samples: Sequence[int]
) -> Key[Array, ' B']:
  """One key a row.

  Args:
    seed: Seed of the run of sampling.
    prompts: Index of each row's prompt.
    samples: Index of each row's sample among those of its prompt.
  """

  def key(prompt, sample):
    return jax.random.fold_in(
      jax.random.fold_in(jax.random.key(seed), prompt), sample
    )

  return jax.vmap(key)(jnp.asarray(prompts), jnp.asarray(samples))
