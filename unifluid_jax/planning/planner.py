"""A plan: a config's program, compiled for slices and judged."""

import dataclasses
import hashlib
import importlib.metadata
from typing import Any

import jax

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.planning.estimate import (
  estimate,
  sampling_work,
  training_work,
)
from unifluid_jax.planning.lowering import image_sampler, train_step
from unifluid_jax.planning.topology import Slices
from unifluid_jax.sharding.mesh import (
  MeshConfig,
  make_mesh,
  sizes_in_slice,
)
from unifluid_jax.utils.errors import UserError

PROGRAMS = ('train', 'sample')


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """The program and topology to plan.

  Attributes:
    name: What the plan calls the config.
    experiment: The config.
    program: 'train', or 'sample' for the image sampler.
    images: Images of a batch of the sampler.
  """

  name: str
  experiment: Experiment
  program: str
  images: int

  def __post_init__(self):
    if self.program not in PROGRAMS:
      raise UserError(
        f'the program is {self.program!r}; it must be one of {PROGRAMS}'
      )

  @property
  def trains(self) -> bool:
    """Whether the program is the training step."""
    return self.program == 'train'

  def mesh(self, devices: int) -> MeshConfig:
    """The mesh in a slice of so many devices.

    A sampler's is that of `inference.load`, which takes the split of layers
    alone from its user; here it is the config's.
    """
    mesh = self.experiment.mesh
    if self.trains:
      return mesh
    tensor = mesh.tensor
    if tensor == -1:
      *_, tensor = sizes_in_slice(mesh, devices)
    return MeshConfig(data=-1, fsdp=1, tensor=tensor)

  @property
  def digest(self) -> str:
    """A key that changes whenever the plan may change."""
    experiment = self.experiment
    data, init = experiment.data, experiment.init
    sections = ('model', 'vae', 'training', 'optimizer', 'mesh', 'sampling')
    parts = (
      (self.name, self.program, self.images),
      [getattr(experiment, section) for section in sections],
      (
        data.image_size,
        data.max_text,
        data.examples,
        data.batch_rows,
        data.row_capacity,
      ),
      (init.frozen, init.dtype),
      (jax.__version__, importlib.metadata.version('libtpu')),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def plan(setting: PlanSettings, slices: Slices) -> dict[str, Any]:
  """Plans one program.

  Args:
    setting: The program.
    slices: Where it would run.

  Raises:
    UserError: The mesh or the batch does not divide.
  """
  experiment, images = setting.experiment, setting.images
  in_slice = len(slices.devices) // slices.number
  mesh = make_mesh(setting.mesh(in_slice), slices.devices)
  if setting.trains:
    compiled, work = train_step(experiment, mesh), training_work(experiment)
  else:
    compiled = image_sampler(experiment, mesh, images)
    work = sampling_work(experiment, images)
  sizes = 'x'.join(str(mesh.shape[axis]) for axis in mesh.axis_names)
  return {
    'config': setting.name,
    'program': setting.program,
    'setting': setting.digest,
    'batch': experiment.data.batch_rows if setting.trains else images,
    'mesh': sizes,
    'remat': experiment.model.remat if setting.trains else '',
    'microbatches': experiment.training.grad_accum_steps
    if setting.trains
    else '',
  } | estimate(slices, compiled, work)
