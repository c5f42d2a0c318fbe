"""Ends the process of an entry point without the interpreter's teardown.

XLA's threads go on with what has been dispatched when an error or a signal ends
the program. A thread that asks for the interpreter's lock during the teardown
is ended by Python in the midst of C++ code, and the process crashes.
"""

import atexit
import contextlib
import os
import sys

_codes: list[int] = []
"""The exit code, once it is known."""


def set_up_leaving() -> None:
  """Makes `leave_with` possible.

  Functions that are registered at exit run in reverse order. To run last, this
  one's must be registered before JAX is imported.
  """
  atexit.register(_leave)


def leave_with(code: int) -> None:
  """Makes the process end with an exit code after all exit handlers.

  Python still prints the exception that ends the program, and waits for
  threads.
  """
  _codes.append(code)


def leave(code: int) -> None:
  """Ends the process immediately, after flushing its output."""
  for stream in (sys.stdout, sys.stderr):
    # The shell may have closed it, or its reader may be gone.
    with contextlib.suppress(AttributeError, OSError, ValueError):
      stream.flush()
  os._exit(code)


def _leave() -> None:
  if _codes:
    leave(_codes[-1])
