"""The prompt probe: losses with right, wrong and no prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import tiny
from tests.vocabulary import make_tokenizer
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.sharding.mesh import make_mesh
from unifluid_jax.training.preflight import check_config
from unifluid_jax.training.prompt_probe import prompt_probe
from unifluid_jax.training.state import initial_train_state, make_context


@pytest.fixture(scope='module', params=['causal', 'masked'])
def probe(request, tmp_path_factory):
  """The probe of a tiny config, and a fresh state."""
  config = tiny.get_config()
  config.model.decoding = request.param
  experiment = build(Experiment, config)
  tokenizer = make_tokenizer(experiment, tmp_path_factory.mktemp('run'))
  spec = make_model_spec(experiment, tokenizer.boi_id)
  context = make_context(experiment, spec)
  tasks = check_config(experiment).tasks
  mesh = make_mesh(experiment.mesh, jax.devices()[:1])
  every, measure = prompt_probe(experiment, tasks, tokenizer, context, mesh)
  assert every == experiment.training.probe_every
  vae = spec.vae.fresh_parameters(0)
  state = initial_train_state(experiment, spec, context, vae, {})
  return measure, state, request.param == 'causal'


def test_a_fresh_model_predicts_nothing_from_any_prompt(probe):
  """Its head starts at zero output: the loss is that of predicting zero."""
  measure, state, is_causal = probe
  values = measure(state)
  for split in ('train', 'heldout'):
    losses = [values[f'probe_{split}_{p}'] for p in ('right', 'wrong', 'no')]
    assert losses[0] > 0 and losses == pytest.approx([losses[0]] * 3, rel=1e-5)
  ranks = [name for name in values if 'gap_rank' in name]
  assert bool(ranks) == is_causal
  assert all(values[name] == pytest.approx(0, abs=1e-5) for name in ranks)


def test_it_sees_what_the_model_makes_of_prompts(probe):
  measure, state, is_causal = probe
  rng = np.random.default_rng(0)
  params = {
    name: value + 0.1 * jnp.asarray(rng.normal(size=value.shape), value.dtype)
    for name, value in state.params.items()
  }
  values = measure(state._replace(params=params))
  assert values == measure(state._replace(params=params))
  losses = {values[f'probe_train_{p}'] for p in ('right', 'wrong', 'no')}
  assert len(losses) == 3
  if is_causal:
    gaps = {k: v for k, v in values.items() if 'train_gap_rank' in k}
    sizes = dict.fromkeys(gaps, 0)
    for rank in range(16):
      first = 0 if rank == 0 else 2 ** (rank.bit_length() - 1)
      name = f'probe_train_gap_rank_{first}'
      if name in sizes:
        sizes[name] += 1
    mean = np.average([*gaps.values()], weights=[*sizes.values()])
    whole = values['probe_train_wrong'] - values['probe_train_right']
    assert mean == pytest.approx(whole, abs=1e-5)
  # Text that nobody reads changes nothing: the embeddings reach no image.
  silent = {
    name: jnp.zeros_like(value) if 'attention/out' in name else value
    for name, value in params.items()
  }
  values = measure(state._replace(params=silent))
  assert values['probe_train_right'] == pytest.approx(
    values['probe_train_wrong'], rel=1e-5
  )
