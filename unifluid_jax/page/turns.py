"""One request at a time uses the model."""

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator

from unifluid_jax.utils.errors import UserError


class Turns:
  """Serializes requests, with a limit on waiting."""

  def __init__(self, patience: float, tell: Callable[[str], object]):
    """Nothing runs yet.

    Args:
      patience: Seconds that a request waits for another to end.
      tell: Shows a status to the sender of the current request.
    """
    self._patience = patience
    self._tell = tell
    self._lock = threading.Lock()
    self._compiled: set[Hashable] = set()

  @contextlib.contextmanager
  def take(self, program: Hashable) -> Iterator[None]:
    """Holds the model.

    Args:
      program: What is run; the first time, it is compiled.

    Raises:
      UserError: Another request has held the model for too long.
    """
    if not self._lock.acquire(timeout=self._patience):
      raise UserError(
        'the model is busy with another request; try again in a while'
      )
    try:
      if program not in self._compiled:
        self._tell(
          'Compiling: the first request of a kind takes up to a few minutes; '
          'later ones start at once.'
        )
      yield
      self._compiled.add(program)
    finally:
      self._lock.release()
