"""What the entry points share: flags, clear errors, exit codes.

exit code 0    done
          1    a user's mistake: one message, no traceback
          141  what reads the output is gone, such as `head`
          130  interrupted by Ctrl-C, training after saving; start again to
               go on
          0    stopped by SIGTERM (preemption), training after saving; start
               again to go on

Of several processes that train together, all fail if one does.
"""

import errno
import functools
import logging as logging_std
import os
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from unifluid_jax.cli.config_file import define_config_flag
from unifluid_jax.cli.output import (
  CLOSED,
  end_output,
  is_output_closed,
  set_up_output,
)
from unifluid_jax.distributed import processes
from unifluid_jax.distributed.interruption import Interrupted, stop_at_once
from unifluid_jax.utils.accelerators import ignore_absent_tpu
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath, to_path
from unifluid_jax.utils.process_exit import leave_with

_MENDS = dict.fromkeys(
  (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), 'make room'
) | {errno.EROFS: 'make it writable'}
"""What to do if a full disk, a used up quota, a limit of file sizes or a disk
that has become read-only lets nothing be written."""


_AGAIN = 0.05
"""Seconds after which a signal that was lost is sent again."""


def define_config_flags() -> tuple[flags.FlagHolder, flags.FlagHolder]:
  """Defines --config and --workdir."""
  workdir = flags.DEFINE_string('workdir', None, 'Folder of the run.')
  return define_config_flag(), workdir


def define_process_flags() -> Callable[[], None]:
  """Defines --coordinator, --processes, --process_id and --start_timeout.

  Returns:
    What joins the other processes, to be called first of all.
  """
  coordinator = flags.DEFINE_string(
    'coordinator',
    None,
    f'HOST or HOST:PORT ({processes.PORT}) of process 0, where several train '
    'together; on a Cloud TPU they find one another.',
  )
  count = flags.DEFINE_integer('processes', None, 'Number of processes.')
  index = flags.DEFINE_integer(
    'process_id', None, 'Index of this process, from 0.'
  )
  timeout = flags.DEFINE_float(
    'start_timeout',
    60.0,
    'Seconds to wait for all processes to start.',
    lower_bound=0,
    upper_bound=10**6,
  )

  def start() -> None:
    place = None
    if count.value == 1:
      place = processes.make_address(
        coordinator.value or 'localhost', 1, index.value or 0
      )
    elif any(flag.value is not None for flag in (coordinator, count, index)):
      place = processes.make_address(
        require(coordinator), require(count), require(index)
      )
    processes.start(place, timeout.value)

  return start


def run(
  main: Callable[[], None], *, resumes: bool = False, argument: str = ''
) -> None:
  """Parses the flags and runs an entry point.

  Args:
    main: The program; flags are parsed before it is called.
    resumes: Whether it resumes when started again, so that
      SIGTERM is no failure at any moment.
    argument: The flag whose value may be given without its name.
  """
  set_up_output()
  _set_up_logging()
  ignore_absent_tpu()
  if resumes:
    stop_at_once()
  try:
    _run(main, argument)
  except BaseException as error:
    # The message comes last, also where both go into one file.
    code = end_output()
    own = _exit_code(error)
    leave_with(own or code)
    if own:
      processes.fail()
    raise


def _exit_code(error: BaseException) -> int:
  """The code that Python ends with if nothing handles an error."""
  if isinstance(error, KeyboardInterrupt):
    return 130
  if not isinstance(error, SystemExit):
    return 1
  if isinstance(error.code, int):
    return error.code
  return 0 if error.code is None else 1


def _run(main: Callable[[], None], argument: str) -> None:
  """Turns what ends an entry point into its message and exit code."""

  def run(_: list[str]) -> None:
    main()
    sys.stdout.flush()

  try:
    parse = functools.partial(_parse, argument)
    app.run(run, flags_parser=parse)
  except UserError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(_message(error))
  except Interrupted as interrupted:
    logging.info('%s; start the same command again to go on', interrupted)
    sys.exit(130 if interrupted.number == signal.SIGINT else 0)
  except KeyboardInterrupt:
    sys.exit(130)


def _message(error: OSError) -> str | int:
  """The message, or the exit code, for what the system refuses.

  Raises:
    OSError: The cause is not one that the user can fix.
  """
  if isinstance(error, BrokenPipeError) and is_output_closed():
    return CLOSED
  if error.errno in _MENDS:
    file = f' {error.filename}' if error.filename else ''
    return (
      f'error: cannot write{file}: {error.strerror}; {_MENDS[error.errno]} '
      'and start the same command again'
    )
  if error.filename:
    return f'error: cannot use {error.filename}: {error.strerror}'
  raise error


def _set_up_logging() -> None:
  """Shows our log, and only errors of libraries.

  A save or a restore that fails is one `UserError`; what Orbax, TensorStore and
  asyncio report of it, array by array and thread by thread, would bury it.
  """
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(None)
  handler.addFilter(_is_worth_showing)
  logging_std.getLogger('asyncio').disabled = True
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  sys.unraisablehook = _drop


def _drop(unraisable: Any) -> None:
  """Shows nothing of an error in a destructor, and sends a signal again.

  Python cannot raise what a handler raises while a destructor or the callback
  of a weak reference runs: the request to stop would be lost.
  """
  error = unraisable.exc_value
  if isinstance(error, Interrupted | KeyboardInterrupt):
    number = getattr(error, 'number', signal.SIGINT)
    timer = threading.Timer(_AGAIN, os.kill, [os.getpid(), number])
    timer.daemon = True
    timer.start()


def _is_worth_showing(record: logging_std.LogRecord) -> bool:
  """Whether a record is ours, or an error that is not raised as well."""
  ours = str(pathlib.Path(__file__).parents[1])
  grave = record.levelno > logging_std.WARNING and not record.exc_info
  return record.pathname.startswith(ours) or grave


def require(holder: flags.FlagHolder) -> Any:
  """The value of a flag that must be given.

  Raises:
    UserError: It is not given.
  """
  if holder.value in (None, ''):
    raise UserError(f'--{holder.name} must be given')
  return holder.value


def workdir_path(holder: flags.FlagHolder) -> AnyPath:
  """The folder of the run, which `workdir_lock` makes.

  Raises:
    UserError: The flag is not given.
  """
  return to_path(require(holder))


def _parse(argument: str, arguments: list[str]) -> list[str]:
  """Parses the flags; invalid flags raise a `UserError`."""
  # Flags may follow an argument.
  flags.FLAGS.set_gnu_getopt(bool(argument))
  try:
    rest = flags.FLAGS(arguments)
  except UserError:
    raise  # The config's own.
  except (AttributeError, KeyError) as error:
    # ml_collections puts the key into several pairs of quotes.
    text = str(error).replace('\\n', '; ').translate(dict.fromkeys(b'\\\'"'))
    raise UserError(f'the config has no key {text}') from error
  except Exception as error:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = ' '.join(dict.fromkeys((*lines[:1], *lines[-1:])))
    raise UserError(message or f'{type(error).__name__} in a flag') from error
  if argument and len(rest) == 2 and not flags.FLAGS[argument].present:
    flags.FLAGS[argument].value = rest.pop()
  if rest[1:]:
    raise UserError(f'unknown arguments: {" ".join(rest[1:])}')
  return rest
