"""The folder of a run is that of the processes which train in it, alone."""

import contextlib
import fcntl
import os
import pathlib
import secrets
from collections.abc import Iterator

from unifluid_jax.distributed import processes
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath, write_whole


@contextlib.contextmanager
def workdir_lock(workdir: AnyPath) -> Iterator[None]:
  """Holds a folder for the processes of this run, which share it.

  The folder is made if it does not exist. If the block fails and leaves
  nothing in it, it is removed again.

  Raises:
    UserError: In all processes, if another run holds the folder, or if one of
      them was given another folder than process 0; or the folder cannot be
      made, read and written.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(_made(workdir))
    # Process 0 holds the lock for all processes.
    main = processes.is_main()
    is_free = stack.enter_context(_lock(workdir)) if main else True
    if not all(processes.gather(is_free)):
      raise UserError(
        f'--workdir={workdir} is in use: another process trains there; wait '
        'for its end or stop it, or use another folder'
      )
    _check_shared(workdir)
    yield


@contextlib.contextmanager
def _made(workdir: AnyPath) -> Iterator[None]:
  """Makes a folder, which is removed if the block fails and leaves it empty."""
  new: list[pathlib.Path] = []
  if isinstance(workdir, pathlib.Path):
    folders = (workdir, *workdir.parents)
    new = [folder for folder in folders if not folder.exists()]
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except (OSError, ImportError) as error:  # Buckets need the `tpu` extra.
    raise UserError(f'--workdir: cannot make {workdir}: {error}') from error
  rights = os.R_OK | os.W_OK | os.X_OK
  if isinstance(workdir, pathlib.Path) and not os.access(workdir, rights):
    raise UserError(
      f'--workdir: {workdir} cannot be read and written; make it so, or use '
      'another folder'
    )
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):  # Something is in it.
      for folder in new:
        folder.rmdir()
    raise


@contextlib.contextmanager
def _lock(workdir: AnyPath) -> Iterator[bool]:
  """Locks a folder in a `with` block, and reports whether it was free.

  A process that is killed frees it, too. What cannot be locked counts as free:
  a bucket, a file system without locks. Of a disk that machines share, only
  the processes of this one may be seen.
  """
  if not isinstance(workdir, pathlib.Path):
    yield True
    return
  # The folder itself: a file would have to be removed again.
  folder = os.open(workdir, os.O_RDONLY)
  try:
    yield _take(folder)
  finally:
    os.close(folder)


def _take(folder: int) -> bool:
  try:
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:  # This file system does not support locks.
    return True
  return True


def _check_shared(workdir: AnyPath) -> None:
  """Checks that all processes were given the folder of process 0.

  A folder of their own could look the same, from an earlier run. So they look
  for a file of a name that there has never been.

  Raises:
    UserError: In all processes, if one of them has another folder.
  """
  token, *others = processes.gather(secrets.randbits(31))
  if not others:
    return
  proof = workdir / f'shared.{token}.partial'
  if processes.is_main():
    write_whole(proof, b'')
  processes.wait('shared folder')
  sees = processes.gather(proof.exists())
  if processes.is_main():
    proof.unlink()
  if not all(sees):
    blind = ', '.join(str(i) for i, see in enumerate(sees) if not see)
    raise UserError(
      f'--workdir={workdir} is not the folder of process 0 for the processes '
      f'{blind}; give all processes the same one, on a disk that all share'
    )
