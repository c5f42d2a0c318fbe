"""Stops a process on a signal."""

import signal


class Interrupted(BaseException):
  """Raised after a request to stop, once everything is saved.

  Like `KeyboardInterrupt`, it may be raised anywhere. Do not handle it.
  """

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.number = number


def stop_at_once() -> None:
  """Turns SIGTERM into an `Interrupted` while there is nothing to save."""
  signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> None:
  del frame
  raise Interrupted(number)
