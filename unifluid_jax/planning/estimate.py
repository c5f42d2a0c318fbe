"""From a compiled program to memory, rooflines and the price of a run.

A program takes at least as long as each of its resources is busy: arithmetic at
the chips' peak, HBM, the interconnect of the slice, the network between slices
(the roofline model; Williams et al., 2009). The longest binds, and gives upper
bounds of speed and of MFU, which is model FLOPs per second over the peak.
"""

from typing import Any, NamedTuple

import jax

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.masking import MASKED, tokens_per_step
from unifluid_jax.planning.device_memory import (
  Overflow,
  find_overflow,
  gib_per_device,
  total_gib,
)
from unifluid_jax.planning.lowering import LoweredProgram, prefix_slots
from unifluid_jax.planning.topology import Slices
from unifluid_jax.planning.traffic import Traffic, read_traffic
from unifluid_jax.training.flops import (
  attention_flops,
  decoder_parameters,
  hardware_flops,
  head_parameters,
  step_flops,
  vae_decoder_flops,
)


class StepCost(NamedTuple):
  """What one run of a program does.

  Attributes:
    images: Images read or written.
    model_flops: FLOPs of the task.
    hardware_flops: FLOPs that are computed for it.
    runs: How often the config's run does it; 0 for as often as one likes.
  """

  images: float
  model_flops: float
  hardware_flops: float
  runs: int


def training_work(experiment: Experiment) -> StepCost:
  """The work of a training step."""
  return StepCost(
    experiment.data.examples,
    step_flops(experiment),
    hardware_flops(experiment),
    experiment.training.steps,
  )


def sampling_work(experiment: Experiment, images: int) -> StepCost:
  """The work of a batch of text-to-image, for the longest prompts."""
  sampling, tokens = experiment.sampling, experiment.grid**2
  branches = 1 if sampling.guidance.scale == 1 else 2
  counts = tokens_per_step(tokens, sampling.steps)
  if experiment.model.decoding == MASKED:
    # A step feeds the whole image again.
    fed = tokens * len(counts)
  else:
    # The tokens of the last step; each further query repeats its last token.
    fed = sum(
      before + now - 1
      for before, now in zip((1, *counts[:-1]), counts, strict=True)
    )
  prefix = prefix_slots(experiment)
  slots = prefix + tokens
  layers = 2 * decoder_parameters(experiment) * (prefix + fed)
  layers += attention_flops(experiment, slots) * (prefix + fed)
  steps = sampling.head_steps * (2 if sampling.solver == 'heun' else 1)
  head = 2 * head_parameters(experiment) * tokens * steps
  decode = vae_decoder_flops(experiment.vae, experiment.data.image_size)
  total = images * (branches * (layers + head) + decode)
  return StepCost(images, total, total, 0)


def estimate(
  slices: Slices, program: LoweredProgram, work: StepCost
) -> dict[str, Any]:
  """A plan: plain values, for JSON.

  Args:
    slices: Where the program would run.
    program: The program, compiled for that.
    work: What it does.
  """
  per_chip = len(slices.devices) / slices.chips
  limit = slices.chip.hbm_gib
  plan: dict[str, Any] = {
    'topology': slices.name,
    'slices': slices.number,
    'chips': slices.chips,
    'hbm_limit_gib': limit,
    'model_flops_per_step': work.model_flops,
    'hardware_flops_per_step': work.hardware_flops,
    'remat_factor': work.hardware_flops / work.model_flops,
    'compile_s': program.seconds,
  }
  held = {
    name: gib_per_device(arrays) * per_chip
    for name, arrays in program.arguments.items()
  }
  executable = program.executable
  beside = sum(held.values()) / per_chip
  overflow = find_overflow(executable, beside, limit / per_chip)
  if overflow:
    over = overflow.needed - overflow.limit
    temporaries = (overflow.needed - beside) * per_chip
    held['activations and temporaries'] = temporaries
    return plan | {
      'fits': False,
      'hbm_gib_per_chip': overflow.needed * per_chip,
      'hbm_over_gib': over * per_chip,
      'hbm_components_gib': held,
      # What reads plans finds the same keys in each.
      **dict.fromkeys(('bound_by', 'mfu_bound', 'images_per_s', 'chip_hours')),
    }
  assert not isinstance(executable, Overflow)
  total = total_gib(executable) * per_chip
  held['activations and temporaries'] = total - sum(held.values())
  traffic = _traffic(executable, slices)
  seconds = roofline(slices, work, traffic)
  bound_by = max(seconds, key=lambda name: seconds[name])
  step = seconds[bound_by]
  peak = slices.chip.flops * slices.chips
  return plan | {
    'fits': True,
    'hbm_gib_per_chip': total,
    'hbm_components_gib': held,
    'hbm_bytes_per_chip': traffic.hbm * per_chip,
    'ici_bytes_per_chip': traffic.ici * per_chip,
    'dcn_bytes_per_chip': traffic.dcn * per_chip,
    'roofline_s': seconds,
    'bound_by': bound_by,
    'mfu_bound': work.model_flops / step / peak,
    'images_per_s': work.images / step,
    'chip_hours': work.runs * step * slices.chips / 3600,
  }


def roofline(
  slices: Slices, work: StepCost, traffic: Traffic
) -> dict[str, float]:
  """Seconds that each resource is busy for one run of a program."""
  chip = slices.chip
  per_chip = len(slices.devices) / slices.chips
  return {
    'arithmetic': work.hardware_flops / (chip.flops * slices.chips),
    'hbm': traffic.hbm * per_chip / chip.hbm,
    'ici': traffic.ici * per_chip / chip.ici,
    'dcn': traffic.dcn * per_chip / chip.dcn,
  }


def _traffic(executable: jax.stages.Compiled, slices: Slices) -> Traffic:
  text = executable.as_text()
  assert text is not None
  return read_traffic(text, len(slices.devices) // slices.number)
