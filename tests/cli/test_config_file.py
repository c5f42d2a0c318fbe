"""--config: what a user's own file may do wrong."""

import sys

import ml_collections
import pytest

from unifluid_jax.cli.config_file import load_config
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import to_path


def _load(tmp_path, text):
  file = tmp_path / 'mine.py'
  file.write_bytes(text if isinstance(text, bytes) else text.encode())
  return load_config(str(file))


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('def get_config():\n  return stepz', "line 2: NameError: name 'stepz' is"),
    ('x = 1 / 0', 'line 1: ZeroDivisionError: division by zero'),
    ('\n\nint("a")', 'line 3: ValueError: invalid literal for int()'),
    ('def get_config(:', 'line 1: SyntaxError: invalid syntax'),
    ('def get_config():\n\tx = 1\n        y = 2', 'line 3: TabError: '),
    (b'\xff', "line 1: SyntaxError: (unicode error) 'utf-8' codec can't"),
    (
      'import nothing_like_it',
      "line 1: ModuleNotFoundError: No module named 'n",
    ),
    (
      'from experiments import quickstrat',
      'line 1: ImportError: cannot import',
    ),
    (
      'def get_config():\n  open("/none")',
      'line 2: FileNotFoundError: [Errno 2',
    ),
    ('def get_config():\n  b"\\xff".decode()', 'line 2: UnicodeDecodeError: '),
    ('def get_config():\n  return get_config()', 'line 2: RecursionError: '),
    ('def get_config():\n  assert False', 'line 2: AssertionError'),
    (
      'from experiments import quickstart\n\n\n'
      'def get_config():\n  return quickstart.get_confg()',
      "line 5: AttributeError: module 'experiments.quickstart' has no",
    ),
    (
      'from experiments import quickstart\n\n\n'
      'def get_config():\n'
      '  config = quickstart.get_config()\n'
      '  config.training.steps = "many"',
      "line 6: TypeError: Could not override field 'steps'",
    ),
  ],
)
def test_the_line_and_the_reason(text, told, tmp_path):
  with pytest.raises(UserError) as caught:
    _load(tmp_path, text)
  start = f'--config: {tmp_path}/mine.py, {told}'
  assert str(caught.value).startswith(start)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('x = 1', 'has no function get_config; define one'),
    ('get_config = 3', 'has no function get_config; define one'),
    ('def get_config():\n  pass', 'returns nothing; return the config'),
    ('def get_config():\n  return 3', 'returns int; it must return'),
    ('def get_config(arg):\n  return {}', 'missing 1 required positional'),
  ],
)
def test_a_file_that_makes_no_config(text, told, tmp_path):
  with pytest.raises(UserError, match='mine.py') as caught:
    _load(tmp_path, text)
  assert told in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('config.json', 'is JSON; --config takes a Python file with get_config'),
    ('none.py', 'does not exist; name a Python file'),
    ('folder.py', 'is not a file; name a Python file'),
    ('config.yaml', 'must be a Python file with get_config'),
    ('', 'must be a Python file with get_config'),
  ],
)
def test_what_is_no_python_file(name, told, tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'folder.py').mkdir()
  with pytest.raises(UserError) as caught:
    load_config(f'{tmp_path}/{name}'.removesuffix('/'))
  assert told in str(caught.value)


def test_a_config_in_a_bucket():
  with pytest.raises(UserError, match='^--config=gs://a/b.py is in a bucket'):
    load_config('gs://a/b.py')


def test_experiments_outside_of_the_checkout(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  away = [
    p for p in sys.path if not (to_path(p or '.') / 'experiments').exists()
  ]
  monkeypatch.setattr(sys, 'path', away)
  for name in [*sys.modules]:
    if name.partition('.')[0] == 'experiments':
      monkeypatch.delitem(sys.modules, name)
  with pytest.raises(
    UserError, match=r'line 1: .*, or set PYTHONPATH=/'
  ) as one:
    _load(tmp_path, 'from experiments import quickstart')
  root = str(one.value).rpartition('=')[2]
  monkeypatch.syspath_prepend(root)
  text = 'from experiments import tiny\n\n\ndef get_config():\n  return {}'
  assert _load(tmp_path, text) == {}


def test_a_config_is_locked_and_takes_an_argument(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'import ml_collections\n\n\n'
    'def get_config(arg="none"):\n'
    '  return ml_collections.ConfigDict({"arg": arg})\n'
  )
  assert load_config(str(file)).arg == 'none'
  config = load_config(f'{file}:a=1:b')
  assert isinstance(config, ml_collections.ConfigDict)
  assert config.arg == 'a=1:b'
  with pytest.raises(AttributeError):
    config.other = 1
