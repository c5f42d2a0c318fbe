"""The training loop, with a state that merely counts."""

import os
import re
import signal
import sys
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from unifluid_jax.config.sections.checkpoint import CheckpointConfig
from unifluid_jax.distributed.interruption import Interrupted, stop_at_once
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.loop import LoopFunctions, LoopSettings, fit
from unifluid_jax.training.metrics import StepWork, read_log
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput

_STEPS = 6


class State(NamedTuple):
  """The sum of the batches."""

  step: jax.Array
  total: jax.Array
  bad_step: jax.Array


def initialize():
  return State(jnp.int32(0), jnp.float32(0), jnp.int32(-1))


@jax.jit
def add(state, batch):
  total = state.total + batch
  metrics = {'loss': total, 'images': jnp.float32(1)}
  return State(state.step + 1, total, state.bad_step), metrics


def batches(start, put=jax.device_put, before=lambda step: None):
  for step in range(start, _STEPS):
    before(step)
    yield put(np.float32(step))


def train(
  workdir,
  every=2,
  log_every=1,
  profile=None,
  measures=(),
  account=None,
  **options,
):
  run = LoopSettings(
    name='sum',
    workdir=workdir,
    steps=_STEPS,
    log_every=log_every,
    checkpoint=CheckpointConfig(every=every),
    identity={},
    work=StepWork(1, 1),
    account=account or Goodput(),
    profile=profile,
  )
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    initialize(),
  )
  program = LoopFunctions(
    initialize,
    shapes,
    add,
    lambda start: batches(start, **options),
    measures=measures,
  )
  return fit(run, program)


def test_all_steps(tmp_path):
  account = Goodput()
  assert train(tmp_path, account=account).total == 15
  log = read_log(tmp_path)
  assert [line['loss'] for line in log] == [0, 1, 3, 6, 10, 15]
  assert Checkpoints(tmp_path / 'checkpoints').steps == [2, 4, 6]
  for part in ('train', 'compile', 'data_wait', 'save'):
    assert account.seconds[part] > 0, part
  assert account.seconds['restore'] == 0
  assert train(tmp_path, account=account).total == 15
  assert account.seconds['restore'] > 0
  assert read_log(tmp_path) == log


def measure(state):
  """A held-out loss, which the sum of the batches makes known."""
  return {'heldout_loss_text': 10 + float(jax.device_get(state.total))}


def test_held_out_losses_are_logged_where_they_are_measured(tmp_path):
  """Beside the training's, with a line of their own where there is none."""
  train(tmp_path, log_every=4, measures=[(3, measure)])
  found = {x['step']: x.get('heldout_loss_text') for x in read_log(tmp_path)}
  assert found == {3: 13, 4: None, 6: 25}


def test_held_out_losses_of_a_run_that_was_stopped(tmp_path):
  def send(step):
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  train(tmp_path / 'whole', measures=[(2, measure)])
  with pytest.raises(Interrupted):
    train(tmp_path / 'parts', measures=[(2, measure)], before=send)
  train(tmp_path / 'parts', measures=[(2, measure)])
  whole, parts = (
    [(x['step'], x['loss'], x.get('heldout_loss_text')) for x in log]
    for log in map(read_log, (tmp_path / 'whole', tmp_path / 'parts'))
  )
  assert whole == parts
  assert [x for *_, x in whole] == [None, 11, None, 16, None, 25]


def test_few_steps_are_under_way_at_once(tmp_path, monkeypatch):
  """So that a request to stop is followed soon."""
  waited = []
  ready = jax.block_until_ready

  def wait(metrics):
    waited.append(float(jax.device_get(metrics['loss'])))
    return ready(metrics)

  monkeypatch.setattr(jax, 'block_until_ready', wait)
  train(tmp_path, log_every=_STEPS)
  # Of six steps, whose sums these are, two may be under way.
  assert waited == [0, 1, 3, 6]


def test_the_best_checkpoint_is_that_of_the_least_loss(tmp_path, monkeypatch):
  """The mean since the last line of the log, also where no line is written."""
  saved = {}
  save = Checkpoints.save

  def note(checkpoints, step, state, identity, loss):
    saved[step] = loss
    save(checkpoints, step, state, identity, loss)

  monkeypatch.setattr(Checkpoints, 'save', note)
  train(tmp_path, every=1, log_every=3)
  means = [0, 1 / 2, 4 / 3, 6, 16 / 2, 31 / 3]
  np.testing.assert_allclose([*saved.values()], means, rtol=1e-6)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(number, tmp_path):
  handler = signal.getsignal(number)

  def send(step):
    if step == 2:
      os.kill(os.getpid(), number)

  with pytest.raises(Interrupted) as interrupted:
    train(tmp_path, every=5, before=send)
  assert interrupted.value.number == number
  assert signal.getsignal(number) == handler
  assert Checkpoints(tmp_path / 'checkpoints').latest_step == 3
  assert [line['step'] for line in read_log(tmp_path)] == [1, 2, 3]
  assert train(tmp_path, every=5).total == 15


@pytest.mark.parametrize('stderr', ['a pipe without a reader', 'none'])
def test_a_signal_that_cannot_be_told_of(stderr, tmp_path, monkeypatch):
  """As behind a `tee` that the same Ctrl-C has ended."""
  reader, writer = os.pipe()
  os.close(reader)

  def send(step):
    if step == 2:
      os.kill(os.getpid(), signal.SIGINT)

  with open(writer, 'w') as pipe:
    monkeypatch.setattr(sys, 'stderr', None if stderr == 'none' else pipe)
    with pytest.raises(Interrupted):
      train(tmp_path, every=5, before=send)
    monkeypatch.undo()
  assert Checkpoints(tmp_path / 'checkpoints').latest_step == 3


def test_a_signal_during_the_last_save(tmp_path, monkeypatch):
  close = Checkpoints.close

  def send(checkpoints):
    os.kill(os.getpid(), signal.SIGTERM)
    close(checkpoints)

  monkeypatch.setattr(Checkpoints, 'close', send)
  with pytest.raises(Interrupted):
    train(tmp_path)
  assert Checkpoints(tmp_path / 'checkpoints').latest_step == _STEPS


def test_a_signal_while_nothing_is_to_be_saved():
  handler = signal.getsignal(signal.SIGTERM)
  try:
    stop_at_once()
    with pytest.raises(Interrupted, match='stopped by SIGTERM'):
      os.kill(os.getpid(), signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, handler)


def test_what_is_copied_unseen_is_refused(tmp_path):
  with pytest.raises(
    jax.errors.JaxRuntimeError, match='Disallowed host-to-dev'
  ):
    train(tmp_path, put=lambda value: value)


def test_a_failed_save_ends_training_before_the_next(tmp_path, monkeypatch):
  def fail(*arguments, **options):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.CheckpointManager, '_finalize_checkpoint', fail)
  seen = []

  def wait(step):
    """Gives the save of step 2 time to fail."""
    seen.append(step)
    while 'save_finalize' in {thread.name for thread in threading.enumerate()}:
      pass

  with pytest.raises(UserError, match='cannot write .*No space left on device'):
    train(tmp_path, every=2, before=wait)
  assert seen == [0, 1, 2]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
  """Also where the loss of every step so far was finite."""

  def spoil(step):
    if step == 4:
      raise UserError('the data end here')

  def put(value):
    return jax.device_put(np.float32('inf') if value == 3 else value)

  with pytest.raises(UserError, match='step 4 is not saved .*: total hold'):
    train(tmp_path, every=2, before=spoil, put=put)
  assert Checkpoints(tmp_path / 'checkpoints').steps == [2]
  assert train(tmp_path).total == 15


def test_training_goes_on_from_the_newest_that_is_whole(tmp_path, caplog):
  train(tmp_path)
  newest = tmp_path / 'checkpoints' / '6'
  (newest / 'state' / 'manifest.ocdbt').write_bytes(b'')
  log = read_log(tmp_path)
  assert train(tmp_path).total == 15
  assert Checkpoints(tmp_path / 'checkpoints').steps == [2, 4, 6]
  assert [line['loss'] for line in read_log(tmp_path)] == [
    line['loss'] for line in log
  ]
  told = [m for m in caplog.messages if f'{newest} is damaged' in m]
  assert len(told) == 1
  assert (tmp_path / 'checkpoints.damaged.6').exists()


def test_a_trace_of_chosen_steps(tmp_path):
  train(tmp_path, profile=(3, 4))
  (file,) = (tmp_path / 'profile').rglob('*.xplane.pb')
  data = jax.profiler.ProfileData.from_file(str(file))
  steps = {
    dict(event.stats)['step_num']
    for plane in data.planes
    for line in plane.lines
    for event in line.events
    if re.fullmatch('train', event.name)
  }
  assert steps == {3, 4}


def test_a_trace_that_a_signal_cuts_short(tmp_path):
  def send(step):
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(Interrupted):
    train(tmp_path, profile=(3, 99), before=send)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
