"""The training loop of the VAE and of UniFluid: resume, step, log, save."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax
from absl import logging

from unifluid_jax.config.sections.checkpoint import CheckpointConfig
from unifluid_jax.distributed.preemption import StopRequest
from unifluid_jax.training.checkpoint import Checkpoints
from unifluid_jax.training.metrics import Meter, StepWork
from unifluid_jax.training.profile import Profile
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput
from unifluid_jax.utils.paths import AnyPath

Metrics = dict[str, jax.Array]

_MAX_STEPS_IN_FLIGHT = 2
"""Steps handed to the devices before they have done the one before. JAX takes
tens of them, and a request to stop would wait for them all."""


@runtime_checkable
class State(Protocol):
  """What the loop needs to know of a training state."""

  @property
  def step(self) -> jax.Array: ...
  @property
  def bad_step(self) -> jax.Array: ...


S = TypeVar('S', bound=State)
StepFunction = Callable[[S, Any], tuple[S, Metrics]]

Measure = tuple[int, Callable[[Any], dict[str, float]]]
"""An interval in steps, and a function from a state to metrics."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
  """What the loop does around the steps.

  Attributes:
    name: What is trained, for the progress line.
    workdir: Folder of the run; `checkpoints/` and `metrics.jsonl` go there.
    steps: Length of the run.
    log_every: Steps between two lines of the log.
    checkpoint: When checkpoints are made.
    identity: What a checkpoint must have been made by, see `checkpoint`.
    work: What one step does, for rates.
    account: Account of the process's time.
    profile: First and last step of an XProf trace in `profile/`, if any.
  """

  name: str
  workdir: AnyPath
  steps: int
  log_every: int
  checkpoint: CheckpointConfig
  identity: Mapping[str, Any]
  work: StepWork
  account: Goodput
  profile: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class LoopFunctions(Generic[S]):
  """The functions that a run is made of.

  Attributes:
    initialize: Makes the first state, jitted and directly sharded.
    abstract_state: Shapes, dtypes and shardings of the state.
    step: Jitted (state, batch) -> (state, metrics).
    batches: First step -> iterator of device batches from there on.
    extra: An interval, and a jitted (state, batch) -> (state, metrics) that
      runs before the step whenever the interval divides its number.
    measures: Measurements. Each runs after the steps whose number its interval
      divides, and after the last.
  """

  initialize: Callable[[], S]
  abstract_state: Any
  step: StepFunction
  batches: Callable[[int], Iterator[Any]]
  extra: tuple[int, StepFunction] | None = None
  measures: Sequence[Measure] = ()


def fit(run: LoopSettings, program: LoopFunctions[S]) -> S:
  """Trains until `run.steps`, from the newest checkpoint where there is one.

  Args:
    run: What to do.
    program: What to do it with.

  Returns:
    The last state.

  Raises:
    Interrupted: By a signal, after saving.
    UserError: A loss that is not finite, a checkpoint that cannot be used, or
      one that could not be written.
  """
  folder, keep = run.workdir / 'checkpoints', run.checkpoint.keep
  try:
    # However this ends, the save under way is completed first.
    with (
      StopRequest() as stop,
      Checkpoints(folder, keep, run.account) as checkpoints,
    ):
      state = _first_state(run, program, checkpoints)
      if int(state.step) < run.steps:
        state = _train(run, program, state, checkpoints, stop)
    return state
  finally:
    if run.account.seconds['train']:
      logging.info('%s: %s', run.name, run.account)


def _first_state(
  run: LoopSettings, program: LoopFunctions[S], checkpoints: Checkpoints
) -> S:
  """The newest checkpoint's state, else a new one."""
  if checkpoints.latest_step is None:
    return program.initialize()
  state = checkpoints.restore(program.abstract_state, run.identity)
  logging.info('%s resumes from step %d', run.name, int(state.step))
  return state


def _train(
  run: LoopSettings,
  program: LoopFunctions[S],
  state: S,
  checkpoints: Checkpoints,
  stop: StopRequest,
) -> S:
  """The steps that are left.

  Transfers between host and devices are explicit (`device_put`, `device_get`):
  an implicit one could slow down every step.
  """
  start = int(state.step)
  meter = Meter(run.workdir, run.name, run.steps, start, run.work, run.account)
  batches = program.batches(start)
  take_step, extra = _compiling(program.step, run.account), {}
  under_way: collections.deque[Metrics] = collections.deque()
  if program.extra:
    extra_every, take_extra = (
      program.extra[0],
      _compiling(program.extra[1], run.account),
    )
  with (
    Profile(run.workdir / 'profile', run.profile) as profile,
    jax.transfer_guard('disallow'),
    run.account.spend('train'),
  ):
    for done in range(start + 1, run.steps + 1):
      profile.before(done)
      with jax.profiler.StepTraceAnnotation('train', step_num=done):
        try:
          with run.account.spend('data_wait'):
            batch = next(batches)
        except (UserError, RuntimeError):
          # Bad data, or a worker that was killed, costs no step that is done.
          # Of several processes only this one knows, and none saves alone.
          saved = (done - 1) % run.checkpoint.every == 0 or done - 1 == start
          if not saved and jax.process_count() == 1:
            _check_finite(run, state)
            checkpoints.save(done - 1, state, run.identity, meter.mean('loss'))
          raise
        if program.extra and (done - 1) % extra_every == 0:
          state, values = take_extra(state, batch)
          extra = {k: float(v) for k, v in jax.device_get(values).items()}
        state, metrics = take_step(state, batch)
        under_way.append(metrics)
        if len(under_way) > _MAX_STEPS_IN_FLIGHT:
          jax.block_until_ready(under_way.popleft())
      profile.after(done, state)
      meter.add(metrics)
      # Asked once: a signal between two answers would skip the save.
      stopping = stop.reached()
      last = stopping or done == run.steps
      due = [
        measure
        for every, measure in program.measures
        if done % every == 0 or done == run.steps
      ]
      saving = last or done % run.checkpoint.every == 0
      logging_now = last or due or done % run.log_every == 0
      if saving or logging_now:
        _check_finite(run, state)
        checkpoints.check()
      loss = meter.mean('loss') if saving else None
      if logging_now:
        measured: dict[str, float] = {}
        with run.account.spend('evaluation'):
          for measure in due:
            measured |= measure(state)
        meter.write(done, extra | measured)
      if loss is not None:
        checkpoints.save(done, state, run.identity, loss)
      if stopping:
        stop.follow()
  return state


def _compiling(function: StepFunction, account: Goodput) -> StepFunction:
  """The same function, whose first call is spent on compiling."""
  called = False

  def call(state, batch):
    nonlocal called
    if called:
      return function(state, batch)
    called = True
    with account.spend('compile'):
      return function(state, batch)

  return call


def _check_finite(run: LoopSettings, state: State) -> None:
  bad = int(jax.device_get(state.bad_step))
  if bad >= 0:
    raise UserError(
      f'{run.name}: the loss or its gradient was not finite at step {bad + 1}; '
      'lower optimizer.learning_rate, or check the data of that step. '
      f'Checkpoints before it are in {run.workdir / "checkpoints"}'
    )
