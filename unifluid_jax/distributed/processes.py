"""Start-up of the processes that train together, one for each machine.

On a Cloud TPU they find one another. Elsewhere flags say where process 0 is,
how many there are, and which of them this is:

  --coordinator=HOST --processes=2 --process_id=0

On one mesh, another number of processes gives the same bits. On processors one
process sums over its devices in another order, unless started with
`--processes=1`.
"""

import collections
import dataclasses
import os
import threading

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from unifluid_jax.distributed.rendezvous import rendezvous
from unifluid_jax.utils.errors import UserError

PORT = 8476
"""Default port of the coordinator; on TPUs JAX chooses it."""

_MOST = 2**16
"""Largest number of processes."""

_END = 60
"""Seconds that a finished process waits for the others."""

_EXIT_GRACE_SECONDS = 10
"""Seconds that a failed process waits for the others to fail."""


@dataclasses.dataclass(frozen=True)
class ProcessAddress:
  """A process among those that train together.

  Attributes:
    coordinator: HOST:PORT of process 0.
    count: Number of processes.
    index: Id of this one, from 0.
    machines: What the machine of each is called, where that is known.
  """

  coordinator: str
  count: int
  index: int
  machines: tuple[str, ...] = ()


def make_address(coordinator: str, count: int, index: int) -> ProcessAddress:
  """What flags say.

  Args:
    coordinator: HOST or HOST:PORT.
    count: Number of processes.
    index: Id of this process.

  Raises:
    UserError: There can be no such process.
  """
  if not 0 <= index < count:
    raise UserError(
      f'--process_id is {index} and --processes is {count}; ids are 0 to '
      f'{count - 1}'
    )
  if count > _MOST:
    raise UserError(f'--processes is {count}; it must be at most {_MOST}')
  host, colon, port = coordinator.rpartition(':')
  if not colon:
    host, port = coordinator, str(PORT)
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise UserError(
      f'--coordinator is {coordinator!r}; it must be HOST or HOST:PORT'
    )
  return ProcessAddress(f'{host}:{port}', count, index)


def start(place: ProcessAddress | None, timeout: float) -> None:
  """Joins the other processes, before JAX is used for anything else.

  From here on `jax.devices()` are those of all processes, and only process 0
  logs what is no warning.

  Args:
    place: Which process this is; None to ask the TPU, which where there is none
      is the only process.
    timeout: Seconds within which all of them must be there.

  Raises:
    UserError: Some are missing, or have another number of devices; or the TPU
      does not tell of them.
  """
  if place is None:
    place = _place_on_tpu(timeout)
    if place is None or place.count == 1:
      return
  rendezvous(
    place.coordinator, place.count, place.index, timeout, place.machines
  )
  jax.distributed.initialize(
    place.coordinator,
    place.count,
    place.index,
    cluster_detection_method='deactivate',
    shutdown_timeout_seconds=_END,
  )
  _check_devices()
  if not is_main():
    logging.set_verbosity(logging.WARNING)


def fail() -> None:
  """Reports a failure to the other processes, so that they do not wait forever.

  A mistake in a config makes all processes fail, each with its message: they
  end together. If only this one fails, it is gone after some seconds, and JAX
  ends the others: at once if it is process 0 that is missing, else within the
  100 seconds after which a process counts as dead.
  """
  if jax.distributed.is_initialized():
    timer = threading.Timer(_EXIT_GRACE_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()


def gather(value: bool | int) -> list[int]:
  """The values of all processes, which wait for one another."""
  if jax.process_count() == 1:
    return [int(value)]
  return multihost_utils.process_allgather(np.asarray(value, np.int32)).tolist()


def is_main() -> bool:
  """Whether this process logs and writes."""
  return jax.process_index() == 0


def wait(name: str) -> None:
  """Returns when all processes have come to the place of that name."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _place_on_tpu(timeout: float) -> ProcessAddress | None:
  """What the metadata of a Cloud TPU say; None elsewhere.

  Raises:
    UserError: They cannot be had, or process 0's machine has no address yet.
  """
  # As `jax.distributed.initialize` does it, which has no public name for it.
  # Imported here, so that importing this package touches nothing private.
  from jax._src import cloud_tpu_init, clusters

  if not cloud_tpu_init.running_in_cloud_tpu_vm:
    return None
  detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  try:
    coordinator, count, index, _ = detect(
      None, None, None, None, None, int(timeout)
    )
  except (OSError, RuntimeError) as error:
    raise UserError(
      f'the TPU does not tell the other processes ({error}) within {timeout:g} '
      "s; look whether process 0's machine is there, and start all processes "
      'anew'
    ) from error
  if coordinator is None or count is None or index is None:
    return None
  machines = _machines(count, index) if count > 1 else ()
  return ProcessAddress(coordinator, count, index, machines)


def _machines(count: int, index: int) -> tuple[str, ...]:
  """Names of the processes' machines, with addresses for those of this slice.

  Returns:
    An empty tuple if the processes do not come from TPU metadata, or it does
    not name the machines. Only messages use the names.
  """
  from jax._src import clusters
  from jax._src.clusters.cloud_tpu_cluster import BaseTpuCluster

  known = clusters.ClusterEnv._cluster_types
  try:
    cluster = next(
      c for c in known if not c.opt_in_only_method and c.is_env_present()
    )
    if not issubclass(cluster, BaseTpuCluster):
      return ()
    workers = cluster._get_worker_list_in_slice()
  except (OSError, RuntimeError, StopIteration, ValueError):
    return ()
  here, size = index // len(workers), len(workers)
  return tuple(
    f'worker {i % size}'
    + (f' of slice {i // size}' if count > size else '')
    + (f' at {workers[i % size]}' if i // size == here else '')
    for i in range(count)
  )


def _check_devices() -> None:
  """A machine that has lost devices would make no mesh, or an odd one."""
  counts = collections.Counter(d.process_index for d in jax.devices())
  most = max(counts.values())
  fewer = {i: counts[i] for i in range(jax.process_count()) if counts[i] < most}
  if fewer:
    lacking = ', '.join(f'process {i} has {n}' for i, n in fewer.items())
    raise UserError(
      f'the processes have {most} devices each, but {lacking}; replace that '
      'machine, or give all processes the same devices'
    )
