"""Whether all processes of a run are there, before JAX waits for them.

JAX aborts a process that has waited in vain, and does not say for whom. So the
processes meet on the coordinator's port first, which JAX takes over from them:

    process i        process 0
    'i\\n'      ->    waits until all are there or the time is up
               <-    '[2, 5]\\n': these are missing; '[]\\n': none is
"""

import contextlib
import json
import socket
import time

from unifluid_jax.errors import UserError

_PAUSE = 0.2
_PATIENCE = 5.0
"""Seconds that a process has to say its id, and an answer to arrive."""


def call_roll(address: str, count: int, index: int, timeout: float) -> None:
  """Returns when all processes have called, within a second of one another.

  Args:
    address: HOST:PORT, where process 0 listens.
    count: Number of processes.
    index: Id of this process, from 0.
    timeout: Seconds that process 0 waits for the others, and they for it.

  Raises:
    UserError: Not all are there; the message names those that are missing.
  """
  host, port = address.rsplit(':', 1)
  if index:
    missing = _answer(host, int(port), index, timeout)
  else:
    missing = _listen(int(port), count, timeout)
  if missing:
    raise UserError(
      f'{len(missing)} of {count} processes did not arrive at {address} within '
      f'{timeout:g} s; the missing process ids: '
      f'{", ".join(map(str, missing))}. Look at the logs of their machines, '
      'and start all processes anew'
    )


def _listen(port: int, count: int, timeout: float) -> list[int]:
  """Process 0: ids of those that have not called."""
  end = time.monotonic() + timeout
  expected = set(range(1, count))
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_server(port, count))
    callers: dict[int, socket.socket] = {}
    while expected - set(callers) and (left := end - time.monotonic()) > 0:
      server.settimeout(left)
      try:
        caller = stack.enter_context(server.accept()[0])
        caller.settimeout(_PATIENCE)
        index = int(caller.makefile().readline())
      except (OSError, ValueError):  # The time is up, or it is none of ours.
        continue
      callers[index] = caller
    missing = sorted(expected - set(callers))
    for caller in callers.values():
      with contextlib.suppress(OSError):  # It has gone; JAX will notice.
        caller.sendall(f'{json.dumps(missing)}\n'.encode())
  return missing


def _server(port: int, count: int) -> socket.socket:
  try:
    return socket.create_server(('', port), backlog=count)
  except OSError as error:
    raise UserError(
      f'cannot listen on port {port} ({error.strerror}); end what does, or '
      'give --coordinator another port'
    ) from error


def _answer(host: str, port: int, index: int, timeout: float) -> list[int]:
  """Another process: what process 0 says; only 0 is missing if it does not."""
  end = time.monotonic() + timeout
  while time.monotonic() < end:
    # Process 0 may be yet to start.
    with (
      contextlib.suppress(OSError),
      socket.create_connection((host, port), _PATIENCE) as caller,
    ):
      caller.sendall(f'{index}\n'.encode())
      caller.settimeout(timeout + _PATIENCE)
      if line := caller.makefile().readline():
        return json.loads(line)
    time.sleep(_PAUSE)
  return [0]
