"""Evaluates a run on the embedded data, or else on its own.

  python -m unifluid_jax.evaluate --workdir=runs/quickstart

writes `metrics.json`, the measures with all that is needed to repeat them, and
`report.html`, the measures with what the model wrote, into the run's folder.
"""

from absl import flags

from unifluid_jax import inference
from unifluid_jax.cli import entry_point
from unifluid_jax.evaluation.runner import evaluate_run
from unifluid_jax.utils.paths import to_path

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_TENSOR = flags.DEFINE_integer(
  'tensor', 1, inference.TENSOR_HELP, lower_bound=1
)


def main() -> None:
  """Reads the flags and evaluates."""
  evaluate_run(to_path(entry_point.require(_WORKDIR)), _TENSOR.value)


if __name__ == '__main__':
  entry_point.run(main)
