"""Where the arrays of a training state lie, before there are any."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import (
  UNKNOWN_BOI,
  make_model_spec,
  make_unifluid_spec,
)
from unifluid_jax.sharding.mesh import MESH_AXES
from unifluid_jax.training.state import (
  abstract_train_state,
  check_trained,
  make_context,
)
from unifluid_jax.training.vae_state import check_vae_rates
from unifluid_jax.utils.errors import UserError


@pytest.fixture(scope='module')
def target(letters):
  config = tiny.get_config()
  config.init = {'frozen': ('^encoder/',)}
  experiment = build(Experiment, config)
  # One device that poses as eight: nothing is put on it.
  mesh = Mesh(np.resize(jax.devices(), (1, 4, 2)), MESH_AXES)
  spec = make_model_spec(experiment, letters.boi_id)
  context = make_context(experiment, spec)
  return abstract_train_state(experiment, spec, context, mesh)


def axes_of(tree) -> dict[str, set[str]]:
  """The mesh axes that each named array is split over."""
  return {
    name: {axis for axis in leaf.sharding.spec if axis}
    for name, leaf in tree.items()
  }


def test_matrices_are_split_and_what_belongs_to_them_likewise(target):
  params = axes_of(target.params)
  assert params['gemma/embedding'] == {'fsdp', 'tensor'}
  assert axes_of(target.ema) == params
  moments = target.opt_state[1][0]
  assert axes_of(moments.mu) == axes_of(moments.nu) == params


@pytest.mark.parametrize('part', ['params', 'frozen', 'vae'])
def test_no_device_holds_much_more_than_its_share(target, part):
  arrays = getattr(target, part)
  whole = sum(leaf.size for leaf in arrays.values())
  held = sum(
    np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in arrays.values()
  )
  assert held < 0.5 * whole


def check(config):
  experiment = build(Experiment, config)
  check_trained(experiment, make_unifluid_spec(experiment, UNKNOWN_BOI))


def test_gradnorm_needs_layers_that_are_trained():
  config = tiny.get_config()
  config.training.update(balance='gradnorm', balance_every=1)
  config.init = {'frozen': ('^gemma/',)}
  with pytest.raises(UserError, match='init.frozen freezes'):
    check(config)


def test_a_rate_factor_for_no_parameter_is_told():
  config = tiny.get_config()
  config.optimizer.lr_multipliers = {'^encoder/': 0.1, '^haed/': 3.0}
  config.init = {'frozen': ('^encoder/',)}  # which does no harm
  with pytest.raises(
    UserError, match=r"^optimizer\.lr_multipliers has '\^haed/'"
  ):
    check(config)
  config.vae_training.optimizer.lr_multipliers = {'^bottleneck$': 2.0}
  told = r"^vae_training\.optimizer\.lr_multipliers has '\^bottleneck\$'"
  with pytest.raises(UserError, match=told):
    check_vae_rates(build(Experiment, config))
