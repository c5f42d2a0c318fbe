"""What an installed package holds besides modules."""

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
