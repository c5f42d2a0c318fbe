"""Metrics of a run: averages, throughput, MFU, a JSONL log and a progress line.

Rates exclude the time of compiling and saving. MFU is model FLOPs per second
over the peak of all devices; `training/flops.py` has the formulas. They do not
count rematerialization. `goodput` and `seconds_...` account for the time of
this process, see `utils.goodput`.
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

from unifluid_jax.utils.chips import chip_of, count_chips
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.goodput import Goodput, share
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.paths import AnyPath, append_text, write_whole
from unifluid_jax.utils.progress import clock


@dataclasses.dataclass(frozen=True)
class StepWork:
  """What one step does, for rates.

  Attributes:
    tokens: Slots of the transformer.
    flops: Model FLOPs, forward and backward.
  """

  tokens: float
  flops: float


def peak_flops() -> float | None:
  """Peak FLOP/s of all devices; on CPUs, what a 1024^3 matmul reaches in each
  process.

  None for a device that `chips` does not know.
  """
  device = jax.devices()[0]
  chip = chip_of(device.device_kind)
  if chip is not None:
    return chip.flops * count_chips(jax.devices())
  if device.platform != 'cpu':
    return None
  side = 1024
  matmul = jax.jit(lambda x: x @ x)
  x = jnp.ones((side, side), jnp.float32)
  matmul(x).block_until_ready()
  fastest = math.inf
  # The fastest of some: other work on the machine is no lower peak.
  for _ in range(8):
    start = time.perf_counter()
    matmul(x).block_until_ready()
    fastest = min(fastest, time.perf_counter() - start)
  return jax.process_count() * 2 * side**3 / fastest


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
    work: StepWork,
    account: Goodput,
  ):
    """Opens the log `<workdir>/metrics.jsonl`.

    Args:
      workdir: Folder of the run.
      name: What is trained, for the progress line.
      steps: Last step of the run.
      start_step: Steps done before; later lines of the log are dropped.
      work: What one step does.
      account: Where the time of this process goes.
    """
    self._name = name
    self._steps = steps
    self._work = work
    self._peak = peak_flops()
    self._total: clu_metrics.Collection | None = None
    self._before: dict[str, float] = {}
    self._account = account
    self._last_step = start_step
    self._last_seconds = account.seconds
    self._path = workdir / 'metrics.jsonl'
    self._is_main = jax.process_index() == 0
    if self._is_main:
      _truncate_log(self._path, start_step)
    self._tensorboard = _tensorboard_writer(workdir) if self._is_main else None

  def add(self, values: dict[str, jax.Array]) -> None:
    """Adds one step's metrics, of which `images` counts what it saw."""
    if self._total is None:
      self._total = _single(values)
    else:
      self._total = _merge(self._total, values)

  def mean(self, name: str) -> float:
    """The average of a metric since the last `write`, or before that."""
    return (self._before if self._total is None else self._means())[name]

  def _means(self) -> dict[str, float]:
    assert self._total is not None
    means = jax.device_get(self._total.compute())
    return {name: float(mean) for name, mean in means.items()}

  def write(self, step: int, extra: dict[str, float]) -> None:
    """Writes the averages since the last call, and resets them.

    Args:
      step: Steps done.
      extra: Values to log beside the averages.
    """
    self._before = self._means()
    values = self._before | extra
    seconds = self._account.seconds
    passed = {k: v - self._last_seconds[k] for k, v in seconds.items()}
    steps = step - self._last_step
    per_step = max(passed['train'] + passed['data_wait'], 1e-9) / steps
    values |= {
      'seconds_per_step': per_step,
      'images_per_second': values['images'] / per_step,
      'data_wait_ms': 1e3 * passed['data_wait'] / steps,
      'goodput': share(seconds),
      **{f'seconds_{part}': spent for part, spent in seconds.items()},
    }
    if self._work.tokens:
      values['tokens_per_second'] = self._work.tokens / per_step
    if self._work.flops and self._peak is not None:
      values['mfu'] = self._work.flops / per_step / self._peak
    self._total = None
    self._last_step, self._last_seconds = step, seconds
    if self._is_main:
      self._log(step, values)

  def _log(self, step: int, values: dict[str, float]) -> None:
    append_text(self._path, json.dumps({'step': step} | values) + '\n')
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, values)
    left = (self._steps - step) * values['seconds_per_step']
    losses = '  '.join(
      f'{key} {value:.4f}'
      for key, value in values.items()
      if key.startswith(('loss', 'psnr', 'heldout', 'probe_train_gap_rank_0'))
    )
    speed = f'{values["images_per_second"]:.0f} images/s'
    if 'tokens_per_second' in values:
      speed += f'  {values["tokens_per_second"]:.0f} tokens/s'
    if 'mfu' in values:
      speed += f'  MFU {values["mfu"]:.0%}'
    logging.info(
      '%s %d/%d  %s  %s  ETA %s',
      self._name,
      step,
      self._steps,
      losses,
      speed,
      clock(left),
    )


def read_log(workdir: AnyPath) -> list[dict[str, float]]:
  """The lines of a run's metrics log, oldest first; none without a log.

  Raises:
    UserError: A line is damaged.
  """
  return [values for _, values in _parsed_lines(workdir / 'metrics.jsonl')]


def _truncate_log(path: AnyPath, step: int) -> None:
  """Keeps the lines up to `step`."""
  lines = _parsed_lines(path)
  kept = [line for line, values in lines if values['step'] <= step]
  write_whole(path, ''.join(kept).encode())


def _parsed_lines(path: AnyPath) -> list[tuple[str, dict[str, float]]]:
  try:
    parsed = [(line, parse_json(line)) for line in _whole_lines(path)]
    for line, values in parsed:
      if not isinstance(values, dict) or type(values.get('step')) is not int:
        raise ValueError(f'no step in {line.strip()[:40]}')
    return parsed
  except ValueError as error:
    raise UserError(
      f'{path} is damaged ({error}); remove the line, or the file'
    ) from error


def _whole_lines(path: AnyPath) -> list[str]:
  """The lines of a log; a killed run may have left half a line more."""
  if not path.exists():
    return []
  lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
  return [line for line in lines if line.endswith('}\n')]


def _tensorboard_writer(workdir: AnyPath) -> Any:
  """clu's TensorBoard writer where the `tensorboard` extra is installed."""
  try:
    from clu.metric_writers import summary_writer
  except ImportError:
    return None
  return summary_writer.SummaryWriter(str(workdir))
