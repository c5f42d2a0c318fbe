"""The training loop of the VAE and of UniFluid: resume, step, log, save."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from absl import logging

from unifluid_jax.errors import UserError
from unifluid_jax.paths import AnyPath
from unifluid_jax.training.checkpoint import (
  CheckpointConfig,
  Checkpoints,
)
from unifluid_jax.training.metrics import Meter, Work

Metrics = dict[str, jax.Array]


@runtime_checkable
class State(Protocol):
  """What the loop needs to know of a training state."""

  @property
  def step(self) -> jax.Array: ...
  @property
  def bad_step(self) -> jax.Array: ...


S = TypeVar('S', bound=State)
StepFunction = Callable[[S, Any], tuple[S, Metrics]]


class Interrupted(Exception):
  """SIGINT or SIGTERM arrived; the state has been saved."""

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.number = number


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop does, apart from the step itself.

  Attributes:
    name: What is trained, for the progress line.
    workdir: Folder of the run; `checkpoints/` and `metrics.jsonl` go there.
    steps: Length of the run.
    log_every: Steps between two lines of the log.
    checkpoint: When checkpoints are made.
    identity: What a checkpoint must have been made by, see `checkpoint`.
    work: What one step does, for rates.
  """

  name: str
  workdir: AnyPath
  steps: int
  log_every: int
  checkpoint: CheckpointConfig
  identity: Mapping[str, Any]
  work: Work


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM instead of dying of them.

  A second one of either kind kills at once.
  """
  received: list[int] = []
  previous: dict[int, Any] = {}

  def receive(number, frame):
    del frame
    received.append(number)
    signal.signal(number, previous[number])

  for number in (signal.SIGINT, signal.SIGTERM):
    previous[number] = signal.signal(number, receive)
  try:
    yield received
  finally:
    for changed, handler in previous.items():
      signal.signal(changed, handler)


def fit(
  run: Run,
  initialise: Callable[[], S],
  abstract_state: Any,
  step_function: StepFunction,
  batches: Callable[[int], Iterator[Any]],
  extra_step: tuple[int, StepFunction] | None = None,
) -> S:
  """Trains until `run.steps`, from the newest checkpoint where there is one.

  Args:
    run: What to do.
    initialise: Makes the first state, jitted and directly sharded.
    abstract_state: Shapes, dtypes and shardings of the state.
    step_function: Jitted (state, batch) -> (state, metrics).
    batches: First step -> iterator of device batches from there on.
    extra_step: An interval, and a jitted (state, batch) -> (state, metrics)
      that runs before the step whenever the interval divides its number.

  Returns:
    The last state.

  Raises:
    Interrupted: By a signal, after saving.
    UserError: A loss that is not finite, or a checkpoint that cannot be used.
  """
  folder, keep = run.workdir / 'checkpoints', run.checkpoint.keep
  # However this ends, the save under way is completed first.
  with _signals() as received, Checkpoints(folder, keep) as checkpoints:
    state = _restore_or_initialise(run, checkpoints, initialise, abstract_state)
    start = int(state.step)
    if start < run.steps:
      state = _train(
        run,
        state,
        start,
        step_function,
        batches,
        extra_step,
        checkpoints,
        received,
      )
  return state


def _restore_or_initialise(run, checkpoints, initialise, abstract_state):
  if checkpoints.latest_step is None:
    return initialise()
  state = checkpoints.restore(abstract_state, run.identity)
  logging.info('%s resumes from step %d', run.name, int(state.step))
  return state


def _train(
  run, state, start, step_function, batches, extra_step, checkpoints, received
):
  meter = Meter(run.workdir, run.name, run.steps, start, run.work)
  iterator = batches(start)
  latest = {'loss': float('inf')}
  extra: dict[str, float] = {}
  for step in range(start, run.steps):
    asked = time.perf_counter()
    batch = next(iterator)
    wait = time.perf_counter() - asked
    if extra_step and step % extra_step[0] == 0:
      state, values = extra_step[1](state, batch)
      extra = {name: float(value) for name, value in values.items()}
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      state, metrics = step_function(state, batch)
    meter.add(metrics, wait)
    done = step + 1
    # Read once: a signal between two looks at it would skip the save.
    stopping = bool(received)
    last = done == run.steps or stopping
    if last or done % run.log_every == 0:
      _check_finite(run, state)
      latest = meter.write(done, extra)
    if last or done % run.checkpoint.every == 0:
      _check_finite(run, state)
      began = time.perf_counter()
      checkpoints.save(done, state, run.identity, latest['loss'])
      meter.pause(time.perf_counter() - began)
    if stopping:
      raise Interrupted(received[0])
  return state


def _check_finite(run: Run, state: State) -> None:
  bad = int(state.bad_step)
  if bad >= 0:
    raise UserError(
      f'{run.name}: the loss or its gradient was not finite at step {bad}; '
      'lower optimizer.learning_rate, or look at the data of that step. '
      f'Checkpoints before it are in {run.workdir / "checkpoints"}'
    )
