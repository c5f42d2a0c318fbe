"""The roll call of processes, which are threads here."""

import concurrent.futures
import re
import socket

import pytest

from tests import process
from unifluid_jax.errors import UserError
from unifluid_jax.roll_call import call_roll


@pytest.fixture
def address() -> str:
  return f'127.0.0.1:{process.free_port()}'


def call(address: str, count: int, present: list[int], timeout: float):
  """What each process that is present is told; None if nothing is wrong."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    calls = [
      pool.submit(call_roll, address, count, index, timeout)
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
    listening = pool.submit(call_roll, address, 2, 0, 2)
    while True:
      try:
        stranger = socket.create_connection(address.split(':'))
        break
      except ConnectionRefusedError:
        continue
    with stranger:
      stranger.sendall(b'GET / HTTP/1.1\n')
      assert 'ids: 1.' in str(listening.exception())


def test_a_port_in_use(address):
  host, port = address.split(':')
  with (
    socket.create_server((host, int(port))),
    pytest.raises(UserError, match=f'cannot listen on port {port}'),
  ):
    call_roll(address, 2, 0, 1)
