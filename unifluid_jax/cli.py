"""What the entry points share: flags, clear errors, exit codes.

exit code 0    done
          1    a user's mistake: one message, no traceback
          130  interrupted by Ctrl-C, training after saving; start again to
               go on
          0    stopped by SIGTERM (preemption), training after saving; start
               again to go on

Of several processes that train together, all fail if one does.
"""

import errno
import functools
import logging as logging_std
import pathlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from unifluid_jax import processes
from unifluid_jax.errors import UserError
from unifluid_jax.paths import AnyPath, to_path
from unifluid_jax.training.preemption import Interrupted, stop_at_once

_MENDS = dict.fromkeys(
  (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), 'make room'
) | {errno.EROFS: 'make it writable'}
"""What to do if a full disk, a used up quota, a limit of file sizes or a disk
that has become read-only lets nothing be written."""


def define_config_flag() -> flags.FlagHolder:
  """Defines --config."""
  return config_flags.DEFINE_config_file(
    'config',
    None,
    'Experiment, e.g. experiments/quickstart.py; keys can be set by '
    '--config.training.steps=100.',
    lock_config=True,
  )


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
  index = flags.DEFINE_integer('process_id', None, 'Which this is, from 0.')
  timeout = flags.DEFINE_float(
    'start_timeout', 60.0, 'Seconds in which all processes must have started.'
  )

  def start() -> None:
    place = None
    if count.value == 1:
      place = processes.make_place(
        coordinator.value or 'localhost', 1, index.value or 0
      )
    elif any(flag.value is not None for flag in (coordinator, count, index)):
      place = processes.make_place(
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
    resumes: Whether it goes on where it was if it is started again, so that
      SIGTERM is no failure at any moment.
    argument: The flag whose value may be given without its name.
  """
  _set_up_logging()
  if resumes:
    stop_at_once()
  try:
    _run(main, argument)
  except BaseException as error:
    # The message comes last, also where both go into one file.
    sys.stdout.flush()
    if not isinstance(error, SystemExit) or error.code:
      processes.fail()
    raise


def _run(main: Callable[[], None], argument: str) -> None:
  """Turns what ends an entry point into its message and exit code."""
  try:
    parse = functools.partial(_parse, argument)
    app.run(lambda _: main(), flags_parser=parse)
  except UserError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    if error.errno not in _MENDS:
      raise
    file = f' {error.filename}' if error.filename else ''
    sys.exit(
      f'error: cannot write{file}: {error.strerror}; {_MENDS[error.errno]} '
      'and start the same command again'
    )
  except Interrupted as interrupted:
    logging.info('%s; start the same command again to go on', interrupted)
    sys.exit(130 if interrupted.number == signal.SIGINT else 0)
  except KeyboardInterrupt:
    sys.exit(130)


def _set_up_logging() -> None:
  """Shows our reports, and of the libraries' what no exception tells.

  A save or a restore that fails is one `UserError`; what Orbax, TensorStore and
  asyncio report of it, array by array and thread by thread, would bury it.
  """
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(None)
  handler.addFilter(_is_worth_showing)
  logging_std.getLogger('asyncio').disabled = True
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  sys.unraisablehook = lambda _: None


def _is_worth_showing(record: logging_std.LogRecord) -> bool:
  """Whether a record is ours, or an error that is not raised as well."""
  ours = str(pathlib.Path(__file__).parent)
  grave = record.levelno > logging_std.WARNING and not record.exc_info
  return record.pathname.startswith(ours) or grave


def require(holder: flags.FlagHolder) -> Any:
  """The value of a flag that must be given.

  Raises:
    UserError: It is not given.
  """
  if holder.value is None:
    if holder.present:
      raise UserError(f'--{holder.name}: get_config returns nothing')
    raise UserError(f'--{holder.name} must be given')
  return holder.value


def workdir_path(holder: flags.FlagHolder) -> AnyPath:
  """The folder of the run, which `claimed` makes.

  Raises:
    UserError: The flag is not given.
  """
  return to_path(require(holder))


def _parse(argument: str, arguments: list[str]) -> list[str]:
  """Parses the flags; what is wrong with one is a user's mistake."""
  # Flags may follow an argument.
  flags.FLAGS.set_gnu_getopt(bool(argument))
  try:
    rest = flags.FLAGS(arguments)
    if 'config' in flags.FLAGS and flags.FLAGS['config'].value is not None:
      # A file that could not be read only tells so when used.
      flags.FLAGS['config'].value.keys()
  except OSError as error:
    raise UserError(f'--config: {_lines(error)[-1]}') from error
  except (ImportError, SyntaxError) as error:
    raise UserError(f'--config: {error}') from error
  except (AttributeError, KeyError) as error:
    if _is_of_file(error):
      raise UserError(f'--config: {error}') from error
    # ml_collections puts the key into several pairs of quotes.
    text = str(error).replace('\\n', '; ').translate(dict.fromkeys(b'\\\'"'))
    raise UserError(f'the config has no key {text}') from error
  except (flags.Error, TypeError) as error:
    # Of a traceback within the message, the last line is the error.
    lines = dict.fromkeys((_lines(error)[0], _lines(error)[-1]))
    raise UserError(' '.join(lines)) from error
  if argument and len(rest) == 2 and not flags.FLAGS[argument].present:
    flags.FLAGS[argument].value = rest.pop()
  if rest[1:]:
    raise UserError(f'unknown arguments: {" ".join(rest[1:])}')
  return rest


def _is_of_file(error: Exception) -> bool:
  """Whether a config's own code raised it, or has no such code."""
  frames = traceback.walk_tb(error.__traceback__)
  names = {frame.f_code.co_name for frame, _ in frames}
  return 'get_config' in names or "'get_config'" in str(error)


def _lines(error: Exception) -> list[str]:
  return [line.strip() for line in str(error.args[-1]).strip().splitlines()]
