"""What a process loads that samples from a run or from an export."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from tests.configs import tiny
from tests.process import ENVIRONMENT, ROOT
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.state import initial_train_state, make_context
from unifluid_jax.weights.export import Held, Weights, export_own
from unifluid_jax.weights.restore import restore_ema_weights
from unifluid_jax.workdir.run_config import write_config
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

pytestmark = pytest.mark.slow

SAMPLE = """
import atexit, json, pathlib, runpy, sys

def tell():
  ours = {n: m for n, m in sys.modules.items() if n.startswith('unifluid_jax')}
  found = {n: 'optax' in vars(module) for n, module in ours.items()}
  pathlib.Path(target).write_text(json.dumps(found))

target = sys.argv.pop(1)
atexit.register(tell)
runpy.run_module('unifluid_jax.sample', run_name='__main__', alter_sys=True)
"""


@pytest.fixture(scope='module')
def folders(letters, tmp_path_factory) -> dict[str, pathlib.Path]:
  """A run of no step whose encoder is frozen in bfloat16, and its export."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.get_config()
  config.init = {'frozen': ('^encoder/',), 'dtype': ('bfloat16',)}
  experiment = build(Experiment, config)
  write_config(experiment, workdir)
  letters.save(workdir / TOKENIZER_FILE)
  spec = make_model_spec(experiment, letters.boi_id)
  context = make_context(experiment, spec)
  vae = spec.vae.fresh_parameters(0)
  state = jax.jit(
    lambda vae: initial_train_state(experiment, spec, context, vae, {})
  )(vae)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    checkpoints.save(0, state, experiment.identity(letters.fingerprint), 1.0)
  trained = restore_ema_weights(experiment, letters, workdir)
  held = trained.unifluid | {f'vae/{n}': v for n, v in trained.vae.items()}
  model = experiment.model
  weights = Weights(
    {name: Held(value) for name, value in held.items()},
    {'gemma': model.gemma, 'encoder': model.encoder, 'vae': experiment.vae},
    experiment=to_dict(experiment),
    step=trained.step,
    tokenizer=letters.model,
  )
  export = tmp_path_factory.mktemp('exported') / 'export'
  export_own(weights, export, lambda name, dtype: dtype)
  return {'run': workdir, 'export': export}


def test_sampling_loads_nothing_that_trains(folders, tmp_path):
  drawn = {}
  for kind, folder in folders.items():
    out, loaded = tmp_path / kind, tmp_path / f'{kind}.json'
    flags = [f'--workdir={folder}', f'--out={out}', '--task=generate']
    done = subprocess.run(
      [sys.executable, '-c', SAMPLE, loaded, *flags, '--prompt=a'],
      cwd=ROOT,
      env=os.environ | ENVIRONMENT,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    uses_optax = json.loads(loaded.read_text())
    assert 'unifluid_jax.inference' in uses_optax
    assert not [n for n in uses_optax if n.startswith('unifluid_jax.training.')]
    assert 'unifluid_jax.training' not in uses_optax
    assert not any(uses_optax.values())
    drawn[kind] = (out / '0000_0.png').read_bytes()
  assert drawn['run'] == drawn['export']
