"""What is known of a model's parameters before there are any."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import (
  UNKNOWN_BOI,
  ModelSpec,
  make_model_spec,
)
from unifluid_jax.sharding.mesh import MESH_AXES


@pytest.fixture(scope='module')
def spec() -> ModelSpec:
  config = tiny.get_config()
  dtype = ('^encoder/.*mlp=float16', 'bfloat16')
  config.init = {'frozen': ('^encoder/',), 'dtype': dtype}
  return make_model_spec(build(Experiment, config), UNKNOWN_BOI)


def test_fresh_parameters_are_as_the_spec_says(spec):
  for part in spec:
    fresh = jax.eval_shape(lambda part=part: part.fresh_parameters(0))
    assert fresh == part.abstract_parameters
    assert fresh.keys() == part.logical_axes.keys()
    assert sum(leaf.size for leaf in fresh.values()) == part.size


def test_frozen_matrices_alone_are_stored_as_init_says(spec):
  dtypes = {
    n: str(a.dtype) for n, a in spec.unifluid.abstract_parameters.items()
  }
  frozen = {n: d for n, d in dtypes.items() if n.startswith('encoder/')}
  assert {d for n, d in dtypes.items() if n not in frozen} == {'float32'}
  assert {d for n, d in frozen.items() if n.endswith('bias')} == {'float32'}
  assert set(frozen.values()) == {'float16', 'bfloat16', 'float32'}


def test_on_a_mesh_nothing_but_the_place_is_added(spec):
  # One device that poses as eight: nothing is put on it.
  mesh = Mesh(np.resize(jax.devices(), (1, 4, 2)), MESH_AXES)
  placed = spec.unifluid.place(mesh)
  for name, leaf in spec.unifluid.abstract_parameters.items():
    assert (placed[name].shape, placed[name].dtype) == (leaf.shape, leaf.dtype)
  spec_of = placed['gemma/embedding'].sharding.spec
  assert {axis for axis in spec_of if axis} == {'fsdp', 'tensor'}


def test_a_vocabulary_changes_no_parameter():
  experiment = build(Experiment, tiny.get_config())
  one, other = (make_model_spec(experiment, boi) for boi in (UNKNOWN_BOI, 8))
  assert one.unifluid.logical_axes == other.unifluid.logical_axes
  assert one.unifluid.abstract_parameters == other.unifluid.abstract_parameters
  assert one.vae is other.vae
