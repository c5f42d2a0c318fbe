"""Speed of training: the input pipeline alone, and the step alone.

Nothing is read that a run would have trained before: parameters are fresh ones,
whose values cost the same.
"""

import contextlib
import itertools
import time
from collections.abc import Iterator

import jax

from unifluid_jax.batch import Batch
from unifluid_jax.benchmark.timing import time_calls
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec, make_model_spec
from unifluid_jax.data.pipeline import READ
from unifluid_jax.sharding.mesh import make_mesh, shardings_of
from unifluid_jax.training.flops import step_flops
from unifluid_jax.training.metrics import peak_flops
from unifluid_jax.training.preflight import PreparedRun
from unifluid_jax.training.state import (
  abstract_train_state,
  initial_train_state,
  jit_train_step,
  make_context,
)
from unifluid_jax.training.step import StepContext, TrainState
from unifluid_jax.training.unifluid_run import make_training_batches
from unifluid_jax.utils.progress import track

_KEPT = 4
"""Batches that the timed steps take by turns."""


def time_training(start: PreparedRun, steps: int) -> dict[str, float]:
  """Times the pipeline and the training step on all devices.

  Args:
    start: The config, its vocabulary and its sources.
    steps: Steps to time, after the one that compiles.

  Returns:
    data_batch_s          seconds in which the pipeline alone makes a batch
    train_compile_s       seconds of the first step
    train_step_s          median seconds of a step on batches in memory
    train_step_fastest_s  of the fastest step
    train_step_slowest_s  of the slowest step
    images_per_s          images that are read or written, of a step's batch
    tokens_per_s          slots of the transformer
    mfu                   as in `training.metrics`; absent for unknown devices
  """
  experiment = start.experiment
  mesh = make_mesh(experiment.mesh)
  make_batches = make_training_batches(start, mesh)
  with contextlib.closing(make_batches(0)) as batches:
    kept = [next(batches) for _ in range(_KEPT)]
    data_batch = _seconds_of_batch(experiment, batches, steps)
  spec = make_model_spec(experiment, start.tokenizer.boi_id)
  context = make_context(experiment, spec)
  target = abstract_train_state(experiment, spec, context, mesh)
  state = jax.jit(
    lambda: _fresh_state(experiment, spec, context),
    out_shardings=shardings_of(target),
  )()
  step = jit_train_step(context, mesh, target)
  turns = itertools.cycle(kept)
  images = 0.0

  def take_step() -> TrainState:
    nonlocal state, images
    state, metrics = step(state, next(turns))
    images += float(metrics['images'])
    return state

  timing = time_calls(take_step, steps)
  slots = experiment.data.batch_rows * experiment.data.row_capacity.length
  speed = {
    'data_batch_s': data_batch,
    'train_compile_s': timing.first,
    'train_step_s': timing.median,
    'train_step_fastest_s': timing.fastest,
    'train_step_slowest_s': timing.slowest,
    'images_per_s': images / (1 + steps) / timing.median,
    'tokens_per_s': slots / timing.median,
  }
  if (peak := peak_flops()) is not None:
    speed['mfu'] = step_flops(experiment) / timing.median / peak
  return speed


def _seconds_of_batch(
  experiment: Experiment, batches: Iterator[Batch], count: int
) -> float:
  """Seconds a batch over `count` of them, all made in this time."""
  for _ in range(READ.prefetch_buffer_size * (1 + experiment.data.num_workers)):
    next(batches)  # These may have been ready.
  start = time.perf_counter()
  for _ in track(range(count), f'{count} batches, number'):
    next(batches)
  return (time.perf_counter() - start) / count


def _fresh_state(
  experiment: Experiment, spec: ModelSpec, context: StepContext
) -> TrainState:
  """The state of step 0 on a VAE that is as fresh; to be jitted."""
  vae = spec.vae.fresh_parameters(experiment.seed)
  return initial_train_state(experiment, spec, context, vae, {})
