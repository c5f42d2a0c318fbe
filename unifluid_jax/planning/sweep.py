"""Settings that a config leaves open, and the fastest of them that fits."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from unifluid_jax.experiment import Experiment
from unifluid_jax.models.stack import REMAT_POLICIES
from unifluid_jax.planning.report import Plan

_BATCHES = (0.5, 1, 2)
_DATA = (1, 4)
_TENSOR = (1, 2)


def variants(
  experiment: Experiment, devices: int, slices: int
) -> Iterator[Experiment]:
  """The config with other batches, splits of the mesh and remat policies.

  Args:
    experiment: The config; its batch is halved and doubled, its rows shared by
      four times as many copies of the weights, its matrices split in two.
    devices: Devices of a slice.
    slices: Number of slices. Variants that do not divide are left out.
  """
  mesh, data = experiment.mesh, experiment.data
  for factor, copies, tensor, remat in itertools.product(
    _BATCHES, _DATA, _TENSOR, REMAT_POLICIES
  ):
    split = dataclasses.replace(
      mesh, data=mesh.data * copies, fsdp=-1, tensor=tensor
    )
    groups = slices * devices // tensor
    rows = round(data.rows * factor)
    if devices % (split.data * tensor) or rows % (
      groups * experiment.training.accumulate
    ):
      continue
    yield dataclasses.replace(
      experiment,
      mesh=split,
      data=dataclasses.replace(
        data, rows=rows, examples=round(data.examples * factor)
      ),
      model=dataclasses.replace(experiment.model, remat=remat),
    )


def fastest(plans: Iterable[Plan]) -> Plan | None:
  """The plan of most images a second that fits; of equals the smallest."""
  fitting = [plan for plan in plans if plan['fits']]
  return max(
    fitting,
    key=lambda p: (round(p['images_per_s']), -p['hbm_gib_per_chip']),
    default=None,
  )
