"""The config in a run's folder, damaged or of another version."""

import json

import pytest

from tests.configs import tiny
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.restore import read_trained
from unifluid_jax.workdir.run_config import read_experiment, write_config


def test_a_config_is_read_as_it_was_written(tmp_path):
  experiment = build(Experiment, tiny.get_config())
  write_config(experiment, tmp_path)
  assert read_experiment(tmp_path) == experiment


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda text: text[:100], 'is not JSON'),
    (lambda text: f'[{text}]', 'is not a JSON object'),
    (lambda text: '{}', 'config lacks seed'),
  ],
)
def test_a_damaged_config_is_named(tmp_path, damage, message):
  file = tmp_path / 'config.json'
  experiment = build(Experiment, tiny.get_config())
  file.write_text(damage(json.dumps(to_dict(experiment))))
  with pytest.raises(UserError, match=message) as error:
    read_experiment(tmp_path)
  assert str(error.value).startswith(str(file))
  # Also where it might have been an export's.
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(UserError, match=message) as error:
    read_trained(tmp_path, make_mesh(MeshConfig()))
  assert str(error.value).startswith(str(file))
