"""Trains UniFluid.

  python -m unifluid_jax.train --config=experiments/quickstart.py \
      --workdir=runs/quickstart

It needs the VAE of `unifluid_jax.train_vae` in the same folder. A run that was
stopped goes on from its newest complete checkpoint.
"""

from unifluid_jax import cli
from unifluid_jax.config import build
from unifluid_jax.experiment import Experiment
from unifluid_jax.memory import check_memory, unifluid_needs
from unifluid_jax.runs.claim import claimed
from unifluid_jax.runs.preflight import check_start
from unifluid_jax.runs.unifluid import train_unifluid

_CONFIG, _WORKDIR = cli.define_config_flags()
_start = cli.define_process_flags()


def main() -> None:
  """Reads the flags and trains."""
  _start()
  experiment = build(Experiment, cli.require(_CONFIG))
  check_memory(unifluid_needs(experiment), 'a step of the training')
  workdir = cli.workdir_path(_WORKDIR)
  with claimed(workdir):
    start = check_start(experiment, workdir, trains_vae=False)
    train_unifluid(start.experiment, workdir, start)


if __name__ == '__main__':
  cli.run(main, resumes=True)
