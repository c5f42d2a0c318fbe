"""The roll call of processes, which are threads here."""

import concurrent.futures
import re
import socket
import time

import pytest

from tests import process
from unifluid_jax.distributed.rendezvous import rendezvous
from unifluid_jax.utils.errors import UserError


@pytest.fixture
def address() -> str:
  return f'127.0.0.1:{process.free_port()}'


def call(address: str, count: int, present: list[int], timeout: float):
  """What each process that is present is told; '' if nothing is wrong."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    calls = [
      pool.submit(rendezvous, address, count, index, timeout)
      for index in present
    ]
  return [str(call.exception() or '') for call in calls]


def test_all_are_there_in_any_order(address):
  assert call(address, 4, [3, 1, 0, 2], 30) == [''] * 4


def test_the_port_is_free_afterwards(address):
  assert call(address, 2, [0, 1], 30) == call(address, 2, [0, 1], 30)


def test_all_learn_who_is_missing(address):
  told = call(address, 5, [0, 1, 3], 1)
  for message in told:
    assert re.match(f'2 of 5 .* {address} within 1 s; .* ids: 2, 4. ', message)


def test_process_0_is_missing(address):
  (message,) = call(address, 2, [1], 0.5)
  assert 'missing process ids: 0.' in message


def test_a_stranger_is_not_counted(address):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    listening = pool.submit(rendezvous, address, 2, 0, 2)
    while True:
      try:
        stranger = socket.create_connection(address.split(':'))
        break
      except ConnectionRefusedError:
        continue
    with stranger:
      stranger.sendall(b'GET / HTTP/1.1\n')
      assert 'ids: 1.' in str(listening.exception())


def test_another_number_of_processes(address):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    calls = [pool.submit(rendezvous, address, n, n - 2, 30) for n in (2, 3)]
  for each in calls:
    assert str(each.exception()).startswith(
      'process 1 was started with --processes=3, and process 0 with '
      '--processes=2; '
    )


def test_an_id_that_two_have(address):
  for message in call(address, 3, [0, 1, 1], 30):
    assert message.startswith('two processes were started with --process_id=1;')


def test_one_that_is_restarted_meanwhile(address):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    calls = [pool.submit(rendezvous, address, 3, 0, 30)]
    while True:
      try:
        with socket.create_connection(address.split(':')) as first:
          first.sendall(b'1 3\n')
        break
      except ConnectionRefusedError:
        continue
    calls += [pool.submit(rendezvous, address, 3, 2, 30)]
    time.sleep(0.5)  # The others are there before it calls anew.
    calls += [pool.submit(rendezvous, address, 3, 1, 30)]
    assert [each.exception() for each in calls] == [None] * 3


def test_another_program_at_the_port(address):
  host, port = address.split(':')
  with (
    concurrent.futures.ThreadPoolExecutor() as pool,
    socket.create_server((host, int(port))) as server,
  ):
    calling = pool.submit(rendezvous, address, 2, 1, 0.5)
    with server.accept()[0] as caller:
      caller.sendall(b'HTTP/1.1 400 Bad Request\n')
    assert 'ids: 0.' in str(calling.exception())


def test_a_port_in_use(address):
  host, port = address.split(':')
  with (
    socket.create_server((host, int(port))),
    pytest.raises(UserError, match=f'cannot listen on port {port}'),
  ):
    rendezvous(address, 2, 0, 1)
