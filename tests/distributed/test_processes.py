"""What flags, or a TPU, say of a process."""

import pytest
from jax._src import cloud_tpu_init
from jax._src.clusters import cloud_tpu_cluster

from tests import process
from unifluid_jax.distributed import processes
from unifluid_jax.distributed.processes import ProcessAddress, make_address
from unifluid_jax.utils.errors import UserError


def test_the_port_is_pinned():
  assert make_address('host', 2, 0) == ProcessAddress('host:8476', 2, 0)
  assert make_address('10.0.0.1:99', 4, 3) == ProcessAddress(
    '10.0.0.1:99', 4, 3
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('a', 2, 2), '--process_id is 2 and --processes is 2; ids are 0 to 1'),
    (('a', 2, -1), '--process_id is -1'),
    (('a:b', 2, 1), "--coordinator is 'a:b'; it must be HOST or HOST:PORT"),
    ((':8476', 2, 1), "--coordinator is ':8476'"),
    (('a:65536', 2, 1), "--coordinator is 'a:65536'"),
  ],
)
def test_flags_that_make_no_process(flags, message):
  with pytest.raises(UserError, match=message):
    make_address(*flags)


@pytest.mark.parametrize(
  ('slices', 'missing'),
  [
    (1, r'1 \(worker 1 at b\)\. '),
    (
      2,
      r'1 \(worker 1 of slice 0 at b\), 2 \(worker 0 of slice 1\), '
      r'3 \(worker 1 of slice 1\)\. ',
    ),
  ],
)
def test_machines_of_a_tpu_that_are_missing(slices, missing, monkeypatch):
  for module in (cloud_tpu_init, cloud_tpu_cluster):
    monkeypatch.setattr(module, 'running_in_cloud_tpu_vm', True)
  for name, value in {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost,b',
    'TPU_WORKER_ID': '0',
    'MEGASCALE_COORDINATOR_ADDRESS': 'localhost',
    'MEGASCALE_NUM_SLICES': str(slices),
    'MEGASCALE_SLICE_ID': '0',
    'JAX_COORDINATOR_PORT': str(process.free_port()),
  }.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match=f'the missing process ids: {missing}'):
    processes.start(None, 1)


def test_a_tpu_whose_process_0_has_no_address(monkeypatch):
  """As in a cluster whose first pod is yet to come."""
  for module in (cloud_tpu_init, cloud_tpu_cluster):
    monkeypatch.setattr(module, 'running_in_cloud_tpu_vm', True)
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  monkeypatch.setenv('TPU_WORKER_HOSTNAMES', 'process-0.invalid,b')
  monkeypatch.setenv('MEGASCALE_COORDINATOR_ADDRESS', 'process-0.invalid')
  with pytest.raises(UserError, match='coordinator address process-0.invalid'):
    processes.start(None, 0)
