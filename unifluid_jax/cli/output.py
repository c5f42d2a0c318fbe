"""Standard output that shows any text, and whose reader may leave."""

import contextlib
import io
import os
import select
import signal
import sys

CLOSED = 128 + signal.SIGPIPE
"""Exit code that a shell gives a command which SIGPIPE ends."""


def set_up_output() -> None:
  """Lets anything be printed: what the terminal cannot show is escaped."""
  if sys.stdout is None:  # The shell closed it.
    sys.stdout = io.TextIOWrapper(io.BytesIO())
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


def is_output_closed() -> bool:
  """Whether standard output is a pipe that nothing reads any longer."""
  try:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
  except (OSError, ValueError):  # It is no file.
    return False


def end_output() -> int:
  """Flushes standard output.

  What cannot be written is dropped, or Python would try again when it ends, and
  print the error.

  Returns:
    The exit code: 0, CLOSED if the reader is gone, 1 for another failure.
  """
  try:
    sys.stdout.flush()
  except OSError as error:
    with contextlib.suppress(OSError, ValueError):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, sys.stdout.fileno())
      os.close(nowhere)
    return CLOSED if isinstance(error, BrokenPipeError) else 1
  return 0
