"""What cannot fit is refused before it fills the memory."""

import dataclasses
import math

import jax
import ml_collections
import pytest
from flax import nnx

from experiments import unifluid_9b
from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.init import InitConfig
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.training.memory_needs import unifluid_needs, vae_needs
from unifluid_jax.utils import host_memory
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.host_memory import check_host_memory, check_memory


def _experiment(config: ml_collections.ConfigDict, **changes) -> Experiment:
  config.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in changes.items()}
  )
  return build(Experiment, config)


def test_the_smallest_config_fits():
  experiment = _experiment(tiny.get_config())
  check_memory(vae_needs(experiment), 'a step')
  check_memory(unifluid_needs(experiment), 'a step')


def test_no_more_than_the_parameters_that_there_are():
  experiment = _experiment(unifluid_9b.get_config())
  config = experiment.model.gemma
  model = nnx.eval_shape(lambda: Gemma(config, rngs=nnx.Rngs(0)))
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  there_are = 16 * sum(math.prod(leaf.shape) for leaf in leaves)
  trained = dataclasses.replace(experiment, init=InitConfig())
  needed = unifluid_needs(trained)['model.gemma']
  assert 0.99 * there_are < needed <= there_are


@pytest.mark.parametrize(
  ('needs', 'changes', 'told'),
  [
    (vae_needs, {'vae_training__batch': 2**17}, 'vae_training.batch of data'),
    (vae_needs, {'vae__widths': (2**15,)}, 'what is trained (vae) takes'),
    (
      unifluid_needs,
      {'data__batch_rows': 2**17},
      'data.batch_rows of images takes',
    ),
    (unifluid_needs, {'data__examples': 2**17}, 'data.examples of data.image'),
    (
      unifluid_needs,
      {'data__row_capacity__length': 2**16},
      'attention over data.row_capacity',
    ),
    (unifluid_needs, {'model__gemma__mlp_dim': 2**20}, 'model.gemma takes'),
    (unifluid_needs, {'model__gemma__vocab_size': 2**24}, 'model.gemma takes'),
    (unifluid_needs, {'model__head__width': 2**14}, 'model.head takes'),
    (unifluid_needs, {'model__encoder__mlp_dim': 2**20}, 'model.encoder takes'),
  ],
)
def test_one_key_that_is_absurd(needs, changes, told, monkeypatch):
  monkeypatch.setattr(host_memory, '_host_bytes', lambda: 2**26)
  config = tiny.get_config()
  config.vae.update(encoder_blocks=1, decoder_blocks=1)
  check_memory(needs(_experiment(config)), 'a step')
  with pytest.raises(UserError, match='^a step needs at least') as caught:
    check_memory(needs(_experiment(config, **changes)), 'a step')
  assert f' {told}' in str(caught.value)


def test_more_than_this_machine_has():
  with pytest.raises(UserError, match='1,000,000.0 GiB of memory, and there'):
    check_host_memory({'--samples': 10**6 * 2**30}, 'what is asked for')
