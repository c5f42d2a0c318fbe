"""Losses of held-out lines: of the right lines, and the same for all meshes."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

from tests import process
from tests.configs import tiny
from tests.vocabulary import make_tokenizer
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.config.tasks import heldout_tasks
from unifluid_jax.sharding.mesh import make_mesh
from unifluid_jax.training import heldout_losses as heldout_lib
from unifluid_jax.training.heldout_losses import heldout_losses
from unifluid_jax.training.preflight import check_config
from unifluid_jax.training.state import make_context


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A JSONL file of 24 images."""
  path = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  lines = []
  for i in range(24):
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path / f'{i}.png')
    lines.append(json.dumps({'image': f'{i}.png', 'text': f'number {i}'}))
  (path / 'lines.jsonl').write_text('\n'.join(lines) + '\n')
  return path / 'lines.jsonl'


def experiment_of(file, **data) -> Experiment:
  config = tiny.get_config(str(file))
  read = config.data.sources.text_to_image.to_dict() | {'task': 'captioning'}
  config.data.sources.captioning = read
  config.data.update(**data)
  return build(Experiment, config)


def measure_of(experiment, workdir):
  tokenizer = make_tokenizer(experiment, workdir)
  mesh = make_mesh(experiment.mesh, jax.devices()[:1])
  spec = make_model_spec(experiment, tokenizer.boi_id)
  context = make_context(experiment, spec)
  tasks = check_config(experiment).tasks
  return tasks, heldout_losses(experiment, tasks, tokenizer, context, mesh)


def test_each_held_out_line_is_read_and_no_other(folder, tmp_path, monkeypatch):
  read = []
  make_batches = heldout_lib.make_batches

  def note(config, layout, tasks, *arguments, **options):
    for task in tasks.values():
      build = task.build

      def build_and_note(record, rng, augment, build=build):
        example = build(record, rng, augment)
        read.append((example.task, record['image']))
        return example

      task.build = build_and_note
    return make_batches(config, layout, tasks, *arguments, **options)

  monkeypatch.setattr(heldout_lib, 'make_batches', note)
  monkeypatch.setattr(heldout_lib, '_BATCHES', 100)
  experiment = experiment_of(folder, heldout=0.4)
  tasks, found = measure_of(experiment, tmp_path)
  assert found and found[0] == experiment.training.heldout_every
  held = {
    (task.kind, task[i]['image'])
    for task in heldout_tasks(experiment, tasks).values()
    for i in range(len(task))
  }
  assert {*read} == held
  trained = {
    (task.kind, task[i]['image'])
    for task in tasks.values()
    for i in range(len(task))
  }
  assert len(held) > 4 and not held & trained
  assert len(held) + len(trained) == 2 * 24


def test_where_nothing_is_held_out_nothing_is_measured(
  folder, tmp_path, caplog
):
  assert measure_of(experiment_of(folder), tmp_path)[1] is None
  with caplog.at_level(logging.INFO):
    few = experiment_of(folder, heldout=1e-9)
    assert measure_of(few, tmp_path)[1] is None
  assert 'no line is held out of training' in caplog.text
  whole = experiment_of(folder, heldout=0.4)
  sources = {
    name: dataclasses.replace(source, split='all')
    for name, source in whole.data.sources.items()
  }
  data = dataclasses.replace(whole.data, sources=sources)
  everything = dataclasses.replace(whole, data=data)
  tasks, found = measure_of(everything, tmp_path)
  assert found is None and len(tasks['captioning']) == 24


@pytest.mark.slow
@pytest.mark.long
def test_the_same_losses_in_one_process_and_in_two(folder, tmp_path):
  """And where the run is stopped and goes on."""
  config = f'{process.CONFIG}:{folder}'
  more = [
    '--config.data.heldout=0.4',
    '--config.training.heldout_every=2',
    '--config.vae_training.steps=2',
  ]
  first = tmp_path / '1'
  process.succeed('train_vae', *process.flags(first, config), *more)
  shutil.copytree(first, tmp_path / '2')
  found = {}
  for count in (1, 2):
    workdir = tmp_path / str(count)
    flags = [*process.flags(workdir, config), *more]
    for steps in (4, 6) if count == 2 else (6,):
      length = f'--config.training.steps={steps}'
      children = process.start_together(
        'train', count, *flags, length, devices=2 // count
      )
      for code, output in process.end_together(children):
        assert code == 0, output
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    found[count] = [
      json.loads(line).get('heldout_loss_image') for line in lines
    ]
  assert found[1] == found[2]
  assert [value is None for value in found[1]] == [True, False] * 3
