"""Metrics of a run: averages, throughput, MFU, a JSONL log and a progress line.

MFU is model FLOPs per second over the peak of all devices. Model FLOPs of a
step come from `flops.py` (written formulas; rematerialisation not counted).
"""

import dataclasses
import functools
import json
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from clu import metrics as clu_metrics

from unifluid_jax.chips import chip_of, count_chips
from unifluid_jax.errors import UserError
from unifluid_jax.paths import AnyPath, append_text, write_whole
from unifluid_jax.progress import clock


@dataclasses.dataclass(frozen=True)
class Work:
  """What one step does, for rates.

  Attributes:
    images: Images read or written.
    tokens: Slots of the transformer.
    flops: Model FLOPs, forward and backward.
  """

  images: float
  tokens: float
  flops: float


def peak_flops() -> float:
  """Peak FLOP/s of all devices; on a CPU, what a 1024^3 matmul reaches."""
  device = jax.devices()[0]
  chip = chip_of(device.device_kind)
  if chip is not None:
    return chip.flops * count_chips(jax.devices())
  if device.platform != 'cpu':
    return math.nan
  side = 1024
  matmul = jax.jit(lambda x: x @ x)
  x = jnp.ones((side, side), jnp.float32)
  matmul(x).block_until_ready()
  start = time.perf_counter()
  repeats = 8
  for _ in range(repeats):
    x = matmul(x)
  x.block_until_ready()
  return repeats * 2 * side**3 / (time.perf_counter() - start)


@functools.cache
def _collection(names: tuple[str, ...]) -> type[clu_metrics.Collection]:
  return clu_metrics.Collection.create(
    **{name: clu_metrics.Average.from_output(name) for name in names}
  )


@jax.jit
def _single(values: dict[str, jax.Array]) -> clu_metrics.Collection:
  collection = _collection(tuple(sorted(values)))
  return collection.single_from_model_output(**values)


@jax.jit
def _merge(
  total: clu_metrics.Collection, values: dict[str, jax.Array]
) -> clu_metrics.Collection:
  return total.merge(_single(values))


class Meter:
  """Averages metrics on the device and writes them at an interval."""

  def __init__(
    self,
    workdir: AnyPath,
    name: str,
    steps: int,
    start_step: int,
    work: Work,
  ):
    """Opens the log `<workdir>/metrics.jsonl`.

    Args:
      workdir: Folder of the run.
      name: What is trained, for the progress line.
      steps: Last step of the run.
      start_step: Steps done before; later lines of the log are dropped.
      work: What one step does.
    """
    self._name = name
    self._steps = steps
    self._work = work
    self._peak = peak_flops()
    self._total: clu_metrics.Collection | None = None
    self._last_step = start_step
    self._last_time = time.perf_counter()
    self._pause = 0.0
    self._wait = 0.0
    self._path = workdir / 'metrics.jsonl'
    self._is_main = jax.process_index() == 0
    if self._is_main:
      _truncate_log(self._path, start_step)
    self._tensorboard = _tensorboard_writer(workdir) if self._is_main else None

  def add(self, values: dict[str, jax.Array], wait: float) -> None:
    """Adds one step's metrics and the seconds that it waited for data."""
    if self._total is None:
      self._total = _single(values)
    else:
      self._total = _merge(self._total, values)
    self._wait += wait

  def pause(self, seconds: float) -> None:
    """Seconds spent on something else than training, e.g. saving."""
    self._pause += seconds

  def write(self, step: int, extra: dict[str, float]) -> dict[str, float]:
    """Writes the averages since the last call, and starts anew.

    Args:
      step: Steps done.
      extra: Values to log beside the averages.

    Returns:
      What was written.
    """
    assert self._total is not None
    values = {k: float(v) for k, v in self._total.compute().items()}
    now = time.perf_counter()
    busy = max(now - self._last_time - self._pause, 1e-9)
    steps = step - self._last_step
    seconds = busy / steps
    values |= extra | {
      'seconds_per_step': seconds,
      'images_per_second': self._work.images / seconds,
      'tokens_per_second': self._work.tokens / seconds,
      'mfu': self._work.flops / seconds / self._peak,
      'data_wait_ms': 1e3 * self._wait / steps,
    }
    self._total, self._pause, self._wait = None, 0.0, 0.0
    self._last_step, self._last_time = step, now
    if self._is_main:
      self._log(step, values)
    return values

  def _log(self, step: int, values: dict[str, float]) -> None:
    append_text(self._path, json.dumps({'step': step} | values) + '\n')
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, values)
    left = (self._steps - step) * values['seconds_per_step']
    losses = '  '.join(
      f'{key} {value:.4f}'
      for key, value in values.items()
      if key.startswith(('loss', 'psnr'))
    )
    logging.info(
      '%s %d/%d  %s  %.0f images/s  %.0f tokens/s  MFU %.0f %%  ETA %s',
      self._name,
      step,
      self._steps,
      losses,
      values['images_per_second'],
      values['tokens_per_second'],
      100 * values['mfu'],
      clock(left),
    )


def read_log(workdir: AnyPath) -> list[dict[str, float]]:
  """The lines of a run's metrics log, oldest first."""
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    raise UserError(f'{path} does not exist; has the run been started?')
  lines = path.read_text(encoding='utf-8').splitlines()
  return [json.loads(line) for line in lines]


def _truncate_log(path: AnyPath, step: int) -> None:
  """Keeps the lines up to `step`; a killed run may have half a line more."""
  kept = []
  if path.exists():
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
      complete = line.endswith('}\n')
      if complete and json.loads(line)['step'] <= step:
        kept.append(line)
  write_whole(path, ''.join(kept).encode())


def _tensorboard_writer(workdir: AnyPath) -> Any:
  """clu's TensorBoard writer where the `tensorboard` extra is installed."""
  try:
    from clu.metric_writers import summary_writer
  except ImportError:
    return None
  return summary_writer.SummaryWriter(str(workdir))
