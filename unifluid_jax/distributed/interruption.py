"""The end of a process that was asked to stop by a signal."""

import signal


class Interrupted(BaseException):
  """A request to stop was followed: what there was to save has been saved.

  Like `KeyboardInterrupt` it may come up anywhere, and is nobody's to handle.
  """

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.number = number


def stop_at_once() -> None:
  """Makes SIGTERM an `Interrupted` as long as nothing is to be saved."""
  signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> None:
  del frame
  raise Interrupted(number)
