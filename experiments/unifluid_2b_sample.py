"""Sampling of UniFluid 2B on eight chips of v5e or v6e (2x4).

Images of 256 tokens in 64 decoding steps, 10 steps of DPM-Solver++(2M) in the
head; rows are split over the chips and matrices too, so that the weights fit.
Made for plans: `python -m unifluid_jax.plan --program=sample`.
"""

import ml_collections

from experiments import arguments, unifluid_2b


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = unifluid_2b.get_config()
  config.sampling.update(steps=64, solver='dpm_solver', head_steps=10)
  config.mesh = {'data': 2, 'fsdp': 1, 'tensor': 4}
  return arguments.finish(config, is_tiny)
