"""Trains the VAE of a config.

  python -m unifluid_jax.train_vae --config=experiments/quickstart.py \
      --workdir=runs/quickstart
"""

from unifluid_jax import cli
from unifluid_jax.config import build
from unifluid_jax.experiment import Experiment
from unifluid_jax.memory import check_memory, vae_needs
from unifluid_jax.runs.claim import claimed
from unifluid_jax.runs.preflight import check_start
from unifluid_jax.runs.vae import train_vae

_CONFIG, _WORKDIR = cli.define_config_flags()
_start = cli.define_process_flags()


def main() -> None:
  """Reads the flags and trains."""
  _start()
  experiment = build(Experiment, cli.require(_CONFIG))
  check_memory(vae_needs(experiment), 'a step of the training')
  workdir = cli.workdir_path(_WORKDIR)
  with claimed(workdir):
    start = check_start(experiment, workdir, trains_vae=True)
    train_vae(start.experiment, workdir / 'vae', start.vae_tasks)


if __name__ == '__main__':
  cli.run(main, resumes=True)
