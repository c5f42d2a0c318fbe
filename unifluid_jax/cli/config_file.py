"""--config: runs a user's Python file and reports where it fails.

A config is code, so it can fail in any way. Whatever it raises becomes one
`UserError` with the file, the line and the reason.
"""

import importlib.util
import pathlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import local_path

_PACKAGE = pathlib.Path(__file__).parents[1]

# Where a user's own code is not.
_LIBRARIES = (
  str(_PACKAGE),
  sysconfig.get_path('stdlib'),
  sysconfig.get_path('platstdlib'),
  sysconfig.get_path('purelib'),
  sysconfig.get_path('platlib'),
  '<frozen',
)


def define_config_flag() -> flags.FlagHolder:
  """Defines --config."""
  try:
    holder = config_flags.DEFINE_config_file(
      'config',
      None,
      'Experiment, e.g. experiments/quickstart.py; keys can be set by '
      '--config.training.steps=100.',
      lock_config=True,
    )
  except flags.Error as error:  # It reads --flagfile at once.
    sys.exit(f'error: {error}')
  flags.FLAGS['config'].parser = _Parser()
  return holder


class _Parser(flags.ArgumentParser):
  """Reads a config and reports the line that fails."""

  def parse(self, path: str) -> Any:
    """The config of FILE.py, or FILE.py:ARGUMENT."""
    return load_config(path)


def load_config(text: str) -> ml_collections.ConfigDict | Mapping[str, Any]:
  """The locked config that a file makes.

  Args:
    text: FILE.py, or FILE.py:ARGUMENT, whose `get_config` takes the argument.

  Raises:
    UserError: The file does not exist, or does not return a config.
  """
  name, colon, argument = text.partition(':')
  if name == 'gs' and argument.startswith('//'):
    name = text
  file = local_path(name, f'--config={name}')
  _check_file(file, name)
  module = _run(lambda: _load(file), file, name)
  get_config = getattr(module, 'get_config', None)
  if not callable(get_config):
    raise UserError(
      f'--config: {name} has no function get_config; define one that returns '
      'the config'
    )
  arguments = (argument,) if colon else ()
  config = _run(lambda: get_config(*arguments), file, name)
  if config is None:
    raise UserError(
      f'--config: get_config of {name} returns nothing; return the config'
    )
  if not isinstance(config, ml_collections.ConfigDict | Mapping):
    raise UserError(
      f'--config: get_config of {name} returns {type(config).__name__}; it '
      'must return an ml_collections.ConfigDict'
    )
  if isinstance(config, ml_collections.ConfigDict):
    config.lock()
  return config


def _check_file(file: pathlib.Path, name: str) -> None:
  """Rejects names of anything but a Python file."""
  wanted = 'a Python file with get_config, such as experiments/quickstart.py'
  if file.suffix == '.json':
    raise UserError(
      f'--config={name} is JSON; --config takes {wanted}. The config.json of a '
      'run is a record: name the file that the run was started with'
    )
  if file.suffix != '.py':
    raise UserError(f'--config={name} must be {wanted}')
  if not file.is_file():
    state = 'is not a file' if file.exists() else 'does not exist'
    raise UserError(f'--config={name} {state}; name {wanted}')


def _load(file: pathlib.Path) -> ModuleType:
  """The module of a file, under a name that no other module has."""
  spec = importlib.util.spec_from_file_location('config_config', file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  # Data classes and pickling look a module up by its name.
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


def _run(call: Callable[[], Any], file: pathlib.Path, name: str) -> Any:
  """Calls a user's code.

  Raises:
    UserError: It raises anything.
  """
  try:
    return call()
  except UserError:
    raise  # It names the key already.
  except Exception as error:
    reason = _reason(error)
    raise UserError(
      f'--config: {_place(error, file, name)}{reason}{_import_hint(error)}'
    ) from error


def _reason(error: Exception) -> str:
  """What an exception says, on one line."""
  if isinstance(error, SyntaxError):
    return f'{type(error).__name__}: {error.msg}'
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text}' if text else type(error).__name__


def _place(error: Exception, file: pathlib.Path, name: str) -> str:
  """'FILE, line N: ' of the last line of a user's code that ran."""
  if isinstance(error, SyntaxError) and error.filename:
    return f'{_shown(error.filename, file, name)}, line {error.lineno}: '
  frames = traceback.extract_tb(error.__traceback__)
  own = [f for f in frames if not f.filename.startswith(_LIBRARIES)]
  if not own:
    return f'{name}: '
  return f'{_shown(own[-1].filename, file, name)}, line {own[-1].lineno}: '


def _shown(filename: str, file: pathlib.Path, name: str) -> str:
  """The user's own spelling of a file's name."""
  return name if pathlib.Path(filename) == file.absolute() else filename


def _import_hint(error: Exception) -> str:
  """Returns how to make `experiments` importable, if it is missing."""
  if not isinstance(error, ImportError):
    return ''
  package = sys.modules.get('experiments')
  is_found = getattr(package, '__file__', None) is not None
  if is_found or (error.name or '').partition('.')[0] != 'experiments':
    return ''
  root = _PACKAGE.parent
  if not (root / 'experiments' / '__init__.py').exists():
    return (
      '; `experiments` is a folder of the checkout: clone the repository, and '
      'set PYTHONPATH to its folder'
    )
  return f'; run the command in {root}, or set PYTHONPATH={root}'
