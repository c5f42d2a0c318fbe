"""Losses are the same on any mesh, and with any number of processes.

On one mesh they are so to the last bit, where the same code sums over devices:
one process that is started like several has the same on processors.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests import process

pytestmark = pytest.mark.slow

_STEPS = 20
_LONGER = _STEPS + 2
_TOLERANCE = 1e-5

# Processes (None for one that is started without flags for that), devices of
# each, mesh.
_MESHES = {
  'data 8': (None, 8, {'data': 8}),
  'tensor 2 x fsdp 4': (None, 8, {'tensor': 2, 'fsdp': 4}),
  'data 2 x fsdp 2 x tensor 2': (None, 8, {'data': 2, 'fsdp': 2, 'tensor': 2}),
  '2 slices x fsdp 4': (None, 8, {'slices': 2, 'fsdp': 4}),
  '4 processes x fsdp 2': (4, 2, {'data': 2, 'fsdp': 4}),
}
# Between them, these have every axis.
_EACH_AXIS = ('data 2 x fsdp 2 x tensor 2', '2 slices x fsdp 4')


def _train(
  workdir: pathlib.Path,
  processes: int | None,
  devices: int,
  mesh: dict,
  steps: int,
) -> None:
  mesh = {'data': 1, 'fsdp': 1, 'tensor': 1} | mesh
  flags = [
    *process.flags(workdir),
    # Two groups of rows: of four processes, two pack the same one.
    '--config.data.batch_rows=8',
    '--config.data.packing_windows=2',
    '--config.data.examples=16',
    f'--config.training.steps={steps}',
    f'--config.training.checkpoint.every={_STEPS}',
    *(f'--config.mesh.{axis}={size}' for axis, size in mesh.items()),
  ]
  children = (
    [process.start('train', *flags, devices=devices)]
    if processes is None
    else process.start_together('train', processes, *flags, devices=devices)
  )
  ends = process.end_together(children)
  assert [code for code, _ in ends] == [0] * len(ends), ends
  # Only process 0 tells of its progress.
  told = ['ETA' in output for _, output in ends]
  assert told == [True] + [False] * (len(ends) - 1)


def _losses(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  values = [json.loads(line) for line in lines]
  names = ('step', 'loss', 'loss_image', 'loss_text', 'gradient_norm')
  return {name: np.array([v[name] for v in values]) for name in names}


def _assert_same_losses(one: pathlib.Path, other: pathlib.Path) -> None:
  expected = _losses(other)
  for name, values in _losses(one).items():
    wanted = expected[name][: len(values)]
    np.testing.assert_allclose(values, wanted, rtol=_TOLERANCE, err_msg=name)


@pytest.fixture(scope='module')
def vae(_finished) -> pathlib.Path:
  """The VAE that all of them train on."""
  return _finished / 'vae'


@pytest.fixture(scope='module')
def reference(vae, tmp_path_factory) -> pathlib.Path:
  """A run on one device."""
  workdir = tmp_path_factory.mktemp('reference')
  shutil.copytree(vae, workdir / 'vae')
  _train(workdir, None, 1, {}, _LONGER)
  return workdir


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in _EACH_AXIS else [pytest.mark.long])
    for name in _MESHES
  ],
)
def test_twenty_steps_on_a_mesh(name, vae, reference, tmp_path):
  processes, devices, mesh = _MESHES[name]
  shutil.copytree(vae, tmp_path / 'vae')
  _train(tmp_path, processes, devices, mesh, _STEPS)
  assert len(_losses(tmp_path)['step']) == _STEPS
  _assert_same_losses(tmp_path, reference)


@pytest.mark.long
def test_any_number_of_processes_gives_the_same_bits(vae, reference, tmp_path):
  """On one mesh, and where another number goes on from a checkpoint."""
  mesh = {'fsdp': 8}
  one, two, alone = (tmp_path / name for name in ('one', 'two', 'alone'))
  for workdir in (one, two):
    shutil.copytree(vae, workdir / 'vae')
  _train(one, 1, 8, mesh, _LONGER)
  _train(two, 2, 4, mesh, _STEPS)
  _assert_same_losses(two, reference)
  shutil.copytree(two, alone)
  _train(two, 4, 2, mesh, _LONGER)
  expected = _losses(one)
  for name, values in _losses(two).items():
    assert values.tolist() == expected[name].tolist(), name
  _train(alone, None, 1, {}, _LONGER)
  assert _losses(alone)['step'].tolist() == [*range(1, _LONGER + 1)]
  _assert_same_losses(alone, reference)


def test_two_processes_train_the_same_vae(vae, tmp_path):
  flags = [
    *process.flags(tmp_path),
    '--config.mesh.fsdp=4',
    # The whole config is checked, and the devices share rows, too.
    '--config.data.batch_rows=4',
  ]
  ends = process.end_together(
    process.start_together('train_vae', 2, *flags, devices=2)
  )
  assert [code for code, _ in ends] == [0, 0], ends
  one, other = process.read_losses(tmp_path / 'vae'), process.read_losses(vae)
  for line, expected in zip(one, other, strict=True):
    assert line == pytest.approx(expected, rel=_TOLERANCE)
  assert [path.name for path in (tmp_path / 'vae' / 'final').iterdir()] == [
    path.name for path in (vae / 'final').iterdir()
  ]
