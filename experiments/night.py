"""The four tasks on all concepts without skin tones, overnight on a CPU.

It takes about three hours on two cores that are idle.

The quickstart's recipe on the 1,262 concepts that have no skin tone and are no
flag or keycap, with a wider encoder and a larger vocabulary. It goes on where
it was stopped, in as many sittings as it takes.

    bash launch/quickstart.sh experiments/night.py runs/night
"""

import ml_collections

from experiments import arguments, quickstart


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = quickstart.get_config()
  config.data.concepts = 'untoned'
  # Whole words for nearly all names.
  config.tokenizer.vocab_size = 4096
  config.vae_training.steps = 1000
  config.model.gemma.vocab_size = 4096
  config.model.encoder.update(width=192, mlp_dim=768)
  # A drawing comes once in 230 steps, see `training.exposure`.
  config.data.sources.text_to_image.weight = 0.4
  config.training.update(steps=30_000, log_every=100, probe_every=1000)
  config.training.checkpoint.every = 1000
  config.optimizer.update(learning_rate=4e-4, warmup=500, ema=0.999)
  # There are hundreds of held-out prompts.
  config.evaluation = {'samples': 4}
  return arguments.finish(config, is_tiny)
