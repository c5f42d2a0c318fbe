"""Measures how fast a config trains and samples on this machine.

  python -m unifluid_jax.bench --config=experiments/quickstart.py \
      --json=bench.json

It times the input pipeline alone, the training step alone, images decoded token
by token and in parallel, and texts; parameters are fresh ones, so nothing has
to be trained before. Keys of the JSON: `benchmark.training`,
`benchmark.sampling`. `unifluid_jax.plan` estimates upper bounds on TPUs.
Measure on an otherwise idle machine.
"""

import datetime
import sys
from typing import Any

import jax
from absl import flags, logging

from unifluid_jax.benchmark.sampling_speed import sampling_mesh, time_sampling
from unifluid_jax.benchmark.training_speed import time_training
from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.distributed import processes
from unifluid_jax.training.memory_needs import unifluid_needs
from unifluid_jax.training.preflight import check_config
from unifluid_jax.utils.host_memory import check_memory
from unifluid_jax.utils.json_output import check_json, write_json

_CONFIG = entry_point.define_config_flag()
_start = entry_point.define_process_flags()
_STEPS = flags.DEFINE_integer(
  'steps', 20, 'Training steps to time.', lower_bound=1, upper_bound=10**6
)
_IMAGES = flags.DEFINE_integer(
  'images',
  32,
  'Images, and texts, to sample.',
  lower_bound=1,
  upper_bound=10**5,
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Repetitions of the sampling.', lower_bound=1, upper_bound=10**4
)
_JSON = flags.DEFINE_string('json', None, 'Where to write the figures as JSON.')


def main() -> None:
  """Runs the benchmark, prints its figures, and writes them."""
  _start()
  experiment = build(Experiment, entry_point.require(_CONFIG))
  check_memory(unifluid_needs(experiment), 'a step of the training')
  check_json(_JSON.value)
  start = check_config(experiment, also=[lambda: sampling_mesh(experiment)])
  experiment, mesh = start.experiment, sampling_mesh(experiment)
  logging.info('training: %d steps', _STEPS.value)
  figures = time_training(start, _STEPS.value)
  logging.info('sampling: %d images, %d times', _IMAGES.value, _REPEATS.value)
  figures |= time_sampling(
    experiment, start.tokenizer, mesh, _IMAGES.value, _REPEATS.value
  )
  if not processes.is_main():
    return
  write_json(_JSON.value, _place() | figures)
  for name, value in figures.items():
    sys.stdout.write(f'{name:21} {value:.4g}\n')


def _place() -> dict[str, Any]:
  """Returns the figures with machine, versions and date."""
  return {
    'flags': sys.argv[1:],
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'devices_sampling': jax.local_device_count(),
    'date': datetime.date.today().isoformat(),
  }


if __name__ == '__main__':
  entry_point.run(main)
