"""A plan: a config's program, compiled for slices and judged."""

from typing import Any

from unifluid_jax.experiment import Experiment
from unifluid_jax.planning.estimate import (
  estimate,
  sampling_work,
  training_work,
)
from unifluid_jax.planning.programs import image_sampler, train_step
from unifluid_jax.planning.topology import Slices
from unifluid_jax.training.sharding import make_mesh

PROGRAMS = ('train', 'sample')


def plan(
  name: str,
  experiment: Experiment,
  slices: Slices,
  program: str = 'train',
  images: int = 32,
) -> dict[str, Any]:
  """Plans one program.

  Args:
    name: What the plan calls the config.
    experiment: The config.
    slices: Where it would run.
    program: 'train', or 'sample' for the image sampler.
    images: Images of a batch of the sampler.

  Raises:
    UserError: The mesh or the batch does not divide.
  """
  mesh = make_mesh(experiment.mesh, slices.devices)
  if program == 'train':
    compiled, work = train_step(experiment, mesh), training_work(experiment)
  else:
    compiled = image_sampler(experiment, mesh, images)
    work = sampling_work(experiment, images)
  sizes = 'x'.join(str(mesh.shape[axis]) for axis in mesh.axis_names)
  return {
    'config': name,
    'program': program,
    'batch': experiment.data.rows if program == 'train' else images,
    'mesh': sizes,
    'remat': experiment.model.remat if program == 'train' else '',
  } | estimate(slices, compiled, work)
