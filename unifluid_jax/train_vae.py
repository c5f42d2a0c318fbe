"""Trains the VAE of a config.

  python -m unifluid_jax.train_vae --config=experiments/quickstart.py \
      --workdir=runs/quickstart
"""

from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.training.memory_needs import vae_needs
from unifluid_jax.training.preflight import check_start
from unifluid_jax.training.vae_run import train_vae
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.host_memory import check_memory
from unifluid_jax.workdir.workdir_lock import workdir_lock

_CONFIG, _WORKDIR = entry_point.define_config_flags()
_start = entry_point.define_process_flags()


def main() -> None:
  """Reads the flags and trains."""
  account = Goodput.of_process()
  _start()
  experiment = build(Experiment, entry_point.require(_CONFIG))
  check_memory(vae_needs(experiment), 'a step of the training')
  workdir = entry_point.workdir_path(_WORKDIR)
  with workdir_lock(workdir):
    start = check_start(experiment, workdir, trains_vae=True)
    train_vae(start.experiment, workdir / 'vae', start.vae_tasks, account)


if __name__ == '__main__':
  entry_point.run(main, resumes=True)
