"""Whether all processes of a run are there, before JAX waits for them.

JAX aborts a process that has waited in vain, and does not say for whom. So the
processes meet on the coordinator's port first, which JAX takes over from them:

    process i               process 0
    'INDEX COUNT\\n'   ->    waits until all are there or the time is up
                      <-    a line of JSON: what is wrong; '""' if nothing is
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json

_PAUSE = 0.2
_PATIENCE = 5.0
"""Seconds that a process has to say its id, and an answer to arrive."""


def rendezvous(
  address: str,
  count: int,
  index: int,
  timeout: float,
  machines: Sequence[str] = (),
) -> None:
  """Returns when all processes have called, within a second of one another.

  Args:
    address: HOST:PORT, where process 0 listens.
    count: Number of processes.
    index: Id of this process, from 0.
    timeout: Seconds that process 0 waits for the others, and they for it.
    machines: What the machine of each process is called, where that is known.

  Raises:
    UserError: Not all are there, and the message names those that are missing;
      or they were started with flags that contradict one another.
  """
  host, port = address.rsplit(':', 1)

  def absent(missing: Collection[int]) -> str:
    ids = ', '.join(
      f'{i} ({machines[i]})' if machines else f'{i}' for i in sorted(missing)
    )
    return (
      f'{len(missing)} of {count} processes did not arrive at {address} within '
      f'{timeout:g} s; the missing process ids: {ids}. Look at the logs of '
      'their machines, and restart all processes'
    )

  if index:
    wrong = _answer(host, int(port), f'{index} {count}\n', timeout)
    wrong = absent([0]) if wrong is None else wrong
  else:
    wrong = _listen(int(port), count, timeout, absent)
  if wrong:
    raise UserError(wrong)


def _listen(
  port: int,
  count: int,
  timeout: float,
  absent: Callable[[Collection[int]], str],
) -> str:
  """Process 0: reports problems to the processes that have called."""
  end = time.monotonic() + timeout
  expected = set(range(1, count))
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_server(port, count))
    callers: dict[int, socket.socket] = {}
    told: list[socket.socket] = []
    wrong = ''
    while not wrong and (missing := expected - _present(callers)):
      left = end - time.monotonic()
      if left <= 0:
        wrong = absent(missing)
        break
      server.settimeout(left)
      try:
        caller = stack.enter_context(server.accept()[0])
        caller.settimeout(_PATIENCE)
        index, its_count = map(int, caller.makefile().readline().split())
      except (OSError, ValueError):  # Timeout, or another program's connection.
        continue
      wrong = _contradiction(index, its_count, count, callers)
      callers[index] = caller
      told.append(caller)
    for caller in told:
      with contextlib.suppress(OSError):  # It has gone; JAX will notice.
        caller.sendall(f'{json.dumps(wrong)}\n'.encode())
  return wrong


def _contradiction(
  index: int, its_count: int, count: int, callers: Mapping[int, socket.socket]
) -> str:
  """What a caller's flags are wrong in, besides those of the others."""
  if its_count != count:
    return (
      f'process {index} was started with --processes={its_count}, and process '
      f'0 with --processes={count}; start all of them with the same number'
    )
  if index in _present(callers):
    return (
      f'two processes were started with --process_id={index}; give each its '
      f'own, 0 to {count - 1}'
    )
  return ''


def _present(callers: Mapping[int, socket.socket]) -> set[int]:
  return {index for index, caller in callers.items() if not _has_gone(caller)}


def _has_gone(caller: socket.socket) -> bool:
  """Whether a process that called has ended, and may have been restarted."""
  caller.setblocking(False)
  try:
    return not caller.recv(1)
  except BlockingIOError:
    return False
  except OSError:
    return True


def _server(port: int, count: int) -> socket.socket:
  try:
    return socket.create_server(('', port), backlog=count)
  except OSError as error:
    raise UserError(
      f'cannot listen on port {port} ({os.strerror(error.errno or 0)}); end '
      'what does, or give --coordinator another port'
    ) from error


def _answer(host: str, port: int, call: str, timeout: float) -> str | None:
  """Another process: what process 0 says; None if it does not."""
  end = time.monotonic() + timeout
  while time.monotonic() < end:
    # Process 0 may not have started, or another program uses its port.
    with (
      contextlib.suppress(OSError, ValueError),
      socket.create_connection((host, port), _PATIENCE) as caller,
    ):
      caller.sendall(call.encode())
      caller.settimeout(timeout + _PATIENCE)
      if line := caller.makefile().readline():
        return str(parse_json(line))
    time.sleep(_PAUSE)
  return None
