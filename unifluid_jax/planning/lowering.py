"""The programs of a run, compiled for devices that are not there.

They are those that a run itself uses: the training step of `runs`, frozen VAE
included, and the image sampler of `inference`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import UNKNOWN_BOI, make_model_spec
from unifluid_jax.data.packing import PREFIX_MULTIPLE, RowCapacity
from unifluid_jax.masking import decodes_raster
from unifluid_jax.planning.device_memory import Overflow, read_overflow
from unifluid_jax.sampling.compiled import CompiledSamplers
from unifluid_jax.sharding.process_rows import ROWS, check_rows
from unifluid_jax.training.state import (
  abstract_train_state,
  jit_train_step,
  make_context,
)


class LoweredProgram(NamedTuple):
  """A compiled program.

  Attributes:
    arguments: Shapes and shardings of its arguments, by what they are.
    executable: What the compiler made, or what it was short of.
    seconds: Time that tracing and compiling took.
  """

  arguments: dict[str, Any]
  executable: jax.stages.Compiled | Overflow
  seconds: float


def train_step(experiment: Experiment, mesh: Mesh) -> LoweredProgram:
  """The training step for the config's batch.

  Raises:
    UserError: The rows do not divide over the mesh.
  """
  data = experiment.data
  check_rows(
    mesh,
    'data.batch_rows',
    data.batch_rows,
    experiment.training.grad_accum_steps,
  )
  spec = make_model_spec(experiment, UNKNOWN_BOI)
  context = make_context(experiment, spec)
  state = abstract_train_state(experiment, spec, context, mesh)
  batch = abstract_batch(experiment, data.batch_rows, data.row_capacity, mesh)
  arguments = {
    'parameters': state.params,
    'optimizer': state.opt_state,
    'ema': state.ema,
    'frozen': (state.frozen, state.vae),
    'batch': batch,
  }
  step = jit_train_step(context, mesh, state)
  return _compile(lambda: step.lower(state, batch), arguments)


def image_sampler(
  experiment: Experiment, mesh: Mesh, images: int
) -> LoweredProgram:
  """The sampler of text-to-image, for prompts of the longest length.

  Args:
    experiment: The config; its `sampling` is planned.
    mesh: The mesh.
    images: Images of a batch.

  Raises:
    UserError: The images do not divide over the mesh.
  """
  check_rows(mesh, '--images', images)
  spec = make_model_spec(experiment, UNKNOWN_BOI)
  params, vae = spec.unifluid.place(mesh), spec.vae.place(mesh)
  training = experiment.training
  raster = decodes_raster(training.steps, training.raster_fade)
  samplers = CompiledSamplers(experiment, spec, raster, mesh)
  sampling = experiment.sampling
  row = RowCapacity(prefix_slots(experiment), 0, 0, 0)
  branches = 1 if sampling.guidance.scale == 1 else 2
  prefix = abstract_batch(experiment, branches * images, row, mesh)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), images))
  keys = jax.ShapeDtypeStruct(
    keys.shape, keys.dtype, sharding=NamedSharding(mesh, ROWS)
  )
  draw = jax.jit(lambda *args: samplers.generate_images(sampling, *args))
  arguments = {'parameters': params, 'vae': vae, 'batch': prefix}
  return _compile(lambda: draw.lower((params, vae), prefix, keys), arguments)


def prefix_slots(experiment: Experiment) -> int:
  """Slots of the longest prompt, with its BOS and separator."""
  slots = experiment.data.max_text + 2
  return -(-slots // PREFIX_MULTIPLE) * PREFIX_MULTIPLE


def abstract_batch(
  experiment: Experiment, rows: int, row: RowCapacity, mesh: Mesh | None = None
) -> Batch:
  """Shapes of a batch; on a mesh its rows are split."""
  sharding = None if mesh is None else NamedSharding(mesh, ROWS)
  written_side = experiment.data.image_size
  read_side = experiment.model.encoder.image_size

  def array(*shape: int, dtype=jnp.int32):
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

  def images(count: int, side: int):
    return array(count, side, side, 3, dtype=jnp.uint8)

  slots = array(row.length)
  return Batch(
    token_ids=slots,
    kind=slots,
    segment_ids=slots,
    positions=slots,
    mask_ar=slots,
    text_slots=array(row.text_targets),
    text_targets=array(row.text_targets),
    text_weights=array(row.text_targets, dtype=jnp.float32),
    understanding_images=images(row.understanding_images, read_side),
    understanding_slots=array(row.understanding_images),
    source_images=images(row.source_images, written_side),
    source_slots=array(row.source_images),
    generated_images=images(row.generated_images, written_side),
    generated_slots=array(row.generated_images),
  )


def _compile(
  lower: Callable[[], jax.stages.Lowered], arguments: dict[str, Any]
) -> LoweredProgram:
  start = time.perf_counter()
  executable: jax.stages.Compiled | Overflow
  try:
    executable = lower().compile()
  except jax.errors.JaxRuntimeError as error:
    overflow = read_overflow(str(error))
    if overflow is None:
      raise
    executable = overflow
  return LoweredProgram(arguments, executable, time.perf_counter() - start)
