"""Settings that a config leaves open, and the fastest of them that fits."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

from unifluid_jax.models.stack import REMAT_POLICIES
from unifluid_jax.planning.planner import PlanSettings
from unifluid_jax.planning.summary import Plan
from unifluid_jax.planning.topology import Slices
from unifluid_jax.sharding.mesh import MeshConfig, sizes_in_slice

_BATCHES = (0.5, 1, 2)
_COPIES = (1, 4)
_TENSOR = {1, 2}


def variants(setting: PlanSettings, slices: Slices) -> Iterator[PlanSettings]:
  """The setting with other batches, splits of the mesh and remat policies.

  Args:
    setting: Its batch is halved and doubled, shared by four times as many
      copies of the weights, its matrices whole, in two, or split as they are.
      A sampler has no backward pass, and so no remat policy, and all devices
      that its matrices are not split over are for copies.
    slices: Where it would run. Variants that do not divide are left out.

  Raises:
    UserError: The devices do not make up the setting's own mesh.
  """
  experiment = setting.experiment
  data, model = experiment.data, experiment.model
  meshes = _meshes(setting, len(slices.devices) // slices.number)
  policies = tuple(REMAT_POLICIES) if setting.trains else (model.remat,)
  parts = experiment.training.grad_accum_steps if setting.trains else 1
  for factor, mesh, remat in itertools.product(_BATCHES, meshes, policies):
    rows, images = (
      round(data.batch_rows * factor),
      round(setting.images * factor),
    )
    batch = rows if setting.trains else images
    groups = len(slices.devices) // mesh.tensor
    if not batch or batch % (groups * parts):
      continue
    examples = round(data.examples * factor)
    yield dataclasses.replace(
      setting,
      images=images,
      experiment=dataclasses.replace(
        experiment,
        mesh=mesh,
        data=dataclasses.replace(data, batch_rows=rows, examples=examples),
        model=dataclasses.replace(model, remat=remat),
      ),
    )


def _meshes(setting: PlanSettings, devices: int) -> list[MeshConfig]:
  """The setting's own mesh and others, of so many devices of a slice."""
  mesh = setting.mesh(devices)
  copies, _, own = sizes_in_slice(mesh, devices)
  splits = [{'tensor': tensor} for tensor in sorted(_TENSOR | {own})]
  if setting.trains:
    splits = [
      {'data': more * copies, 'fsdp': -1} | split
      for more, split in itertools.product(_COPIES, splits)
    ]
  meshes = [dataclasses.replace(mesh, **split) for split in splits]
  # One axis, -1, is the rest.
  return [m for m in meshes if not devices % (m.data * m.fsdp * m.tensor)]


def split(
  settings: Sequence[PlanSettings], slices: Slices, plans: Iterable[Plan]
) -> tuple[list[Plan], list[PlanSettings]]:
  """Plans that are there of settings, and the settings that are left."""
  there = {
    (plan['setting'], plan['topology'], plan['slices']): plan for plan in plans
  }
  found = [there.get((s.digest, slices.name, slices.number)) for s in settings]
  left = [s for s, p in zip(settings, found, strict=True) if p is None]
  return [plan for plan in found if plan is not None], left


def fastest(plans: Iterable[Plan]) -> Plan | None:
  """The plan of most images a second that fits; of equals the smallest."""
  fitting = [plan for plan in plans if plan['fits']]
  return max(
    fitting,
    key=lambda p: (round(p['images_per_s']), -p['hbm_gib_per_chip']),
    default=None,
  )
