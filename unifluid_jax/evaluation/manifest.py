"""What a reader needs to repeat an evaluation."""

import datetime
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np

import unifluid_jax
from unifluid_jax.config.builder import to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.config.sections.sampling import ImageSamplingConfig
from unifluid_jax.data.emoji.catalog import load_catalog
from unifluid_jax.evaluation.text_to_image_metrics import decodings
from unifluid_jax.inference import Model


def make_manifest(model: Model, config: EvaluationConfig) -> dict[str, Any]:
  """What an evaluation on the embedded data is repeated by."""
  # What a drawing's nearest is looked for in, and so how hard that is.
  drawings = {a: len(icons) for a, icons in load_catalog().icons.items()}
  ways = {
    f'text_to_image{suffix}': sampling
    for suffix, sampling in decodings(model.experiment).items()
  }
  return _manifest(model, config, {'drawings': drawings}, ways)


def make_own_manifest(model: Model, config: EvaluationConfig) -> dict[str, Any]:
  """What an evaluation on a user's own data is repeated by."""
  ways = {'text_to_image': model.experiment.sampling}
  return _manifest(model, config, {}, ways)


def _manifest(
  model: Model,
  config: EvaluationConfig,
  more: Mapping[str, Any],
  ways: Mapping[str, ImageSamplingConfig],
) -> dict[str, Any]:
  """Seed, date, machine, versions, sizes and settings, as JSON holds them."""
  now = datetime.datetime.now(datetime.UTC)
  experiment = model.experiment
  spec = make_model_spec(experiment, model.tokenizer.boi_id)
  return {
    'seed': config.seed,
    'date': now.isoformat(timespec='seconds'),
    'machine': _machine(),
    'versions': {
      'unifluid_jax': unifluid_jax.__version__,
      'python': platform.python_version(),
      'jax': jax.__version__,
      'flax': flax.__version__,
      'numpy': np.__version__,
    },
    'git_commit': _git_commit(),
    'parameters': {
      'unifluid': spec.unifluid.size,
      'vae': spec.vae.size,
    },
    **more,
    'decoding': _decoding(experiment, ways),
    'evaluation': to_dict(config),
  }


def _machine() -> dict[str, Any]:
  return {
    'cores': os.cpu_count(),
    'cpu': _cpu_model(),
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
  }


def _cpu_model() -> str:
  """What Linux calls the processor, else what Python does."""
  file = pathlib.Path('/proc/cpuinfo')
  if file.exists():
    for line in file.read_text(encoding='utf-8').splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  return platform.processor() or platform.machine()


def _git_commit() -> str | None:
  """Returns the commit of the code, with '-dirty' after changes.

  Returns:
    None if the package is not in a git checkout, or git is not installed.
  """
  root = pathlib.Path(unifluid_jax.__file__).parents[1]
  if not (root / '.git').exists():
    return None
  describe = ['describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']
  try:
    done = subprocess.run(
      ['git', '-C', str(root), *describe], capture_output=True, text=True
    )
  except OSError:
    return None
  return done.stdout.strip() or None


def _decoding(
  experiment: Experiment, ways: Mapping[str, ImageSamplingConfig]
) -> dict[str, Any]:
  """Settings of the samplers, for each use of them."""
  text = to_dict(experiment.text_sampling) | {'temperature': 0.0}
  generation = {name: to_dict(sampling) for name, sampling in ways.items()}
  edit = to_dict(experiment.editing)
  return {**generation, 'edit': edit, 'text': text}
