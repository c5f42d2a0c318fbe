"""What an installed package holds, and what its modules import."""

import ast
import subprocess
import sys

from tests.process import ROOT


def test_the_wheel_has_the_data_but_not_the_optional_pack(tmp_path):
  command = [sys.executable, 'setup.py', '--quiet', 'build']
  subprocess.run([*command, f'--build-base={tmp_path}'], cwd=ROOT, check=True)
  built = tmp_path / 'lib' / 'unifluid_jax'
  assert (built / 'evaluation' / 'report' / 'page.html').exists()
  packs = {path.name for path in (built / 'data/emoji/packs').iterdir()}
  sources = ROOT / 'unifluid_jax/data/emoji/packs'
  assert packs == {path.name for path in sources.iterdir()} - {
    'openmoji.json.xz'
  }


def test_importing_a_module_touches_no_private_part_of_jax():
  """Functions that need one import it when they are called."""
  for path in (ROOT / 'unifluid_jax').rglob('*.py'):
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.ImportFrom):
        names = [
          node.module or '',
          *(f'{node.module}.{a.name}' for a in node.names),
        ]
      elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      else:
        continue
      assert not any('_src' in name.split('.') for name in names), path
