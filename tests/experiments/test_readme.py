"""The README's recipe for one's own images, on its own example."""

import re

import PIL.Image

from tests.process import ROOT
from unifluid_jax.config import build
from unifluid_jax.experiment import Experiment
from unifluid_jax.runs.preflight import check_start


def test_a_config_for_ones_own_images(tmp_path, monkeypatch):
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  section = text.split('## Train on your own images')[1].split('\n## ')[0]
  (lines,) = re.findall(r'```json\n(.*?)```', section, re.DOTALL)
  (code,) = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
  photos = tmp_path / 'photos'
  photos.mkdir()
  (photos / 'captions.jsonl').write_text(lines)
  for name in re.findall(r'"([a-z]+\.(?:png|jpg))"', lines):
    PIL.Image.new('RGB', (50, 40), 'red').save(photos / name)
  monkeypatch.chdir(tmp_path)
  scope: dict = {}
  exec(code, scope)
  experiment = build(Experiment, scope['get_config']())
  start = check_start(experiment, tmp_path / 'run', trains_vae=True)
  tokenizer = start.tokenizer
  assert {name: len(task) for name, task in start.tasks.items()} == {
    'draw': 1,
    'read': 1,
  }
  # Few as the texts are, they can be read again.
  assert tokenizer.decode(tokenizer.encode('a red fox')) == 'a red fox'
