"""The four tasks on all concepts without skin tones, a night on two CPU cores.

The quickstart's recipe with a wider decoder and encoder on the 1,262 concepts
that have no skin tone and are no flag or keycap: about 20 minutes for the VAE,
8 hours for UniFluid, in as many sittings as it takes.

    bash launch/quickstart.sh experiments/night.py runs/night
"""

import ml_collections

from experiments import arguments, quickstart


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config; `:tiny` is two steps for tests."""
  _, is_tiny = arguments.parse(arg)
  config = quickstart.get_config()
  config.data.concepts = 'untoned'
  config.tokenizer.vocab_size = 2048
  config.vae_training.steps = 10_000
  config.vae_training.checkpoint.every = 1000
  config.model.gemma.update(vocab_size=2048, width=256, mlp_dim=768)
  config.model.encoder.update(width=192, layers=6, mlp_dim=768)
  config.model.head.update(width=320)
  config.training.update(steps=45_000, log_every=100)
  config.training.checkpoint.every = 1000
  config.optimizer.update(warmup=1000, learning_rate=1e-3, ema=0.9995)
  # There are hundreds of held-out prompts.
  config.evaluation = {'samples': 4}
  return arguments.finish(config, is_tiny)
