"""The README's recipe for one's own images, on its own examples."""

import json
import re

import PIL.Image
import pytest

from tests.process import ROOT
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.sources.index import make_index
from unifluid_jax.training.preflight import check_start


@pytest.fixture
def blocks(tmp_path, monkeypatch):
  """Code of the section by language, beside a folder of its images."""
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  section = text.split('## Train on your own images')[1].split('\n## ')[0]
  found: dict[str, list[str]] = {}
  for language, code in re.findall(r'```(\w+)\n(.*?)```', section, re.DOTALL):
    found.setdefault(language, []).append(code)
  (tmp_path / 'photos').mkdir()
  monkeypatch.chdir(tmp_path)
  return found


def test_a_config_for_ones_own_images(blocks, tmp_path):
  (lines,), (_, code) = blocks['json'], blocks['python']
  # Of the pictures of a few lines, all may be held out.
  lines = f'{lines}{lines.replace("fox.png", "photo.png")}'
  photos = tmp_path / 'photos'
  (photos / 'captions.jsonl').write_text(lines)
  for name in re.findall(r'"([a-z]+\.(?:png|jpg))"', lines):
    PIL.Image.new('RGB', (50, 40), 'red').save(photos / name)
  scope: dict = {}
  exec(code, scope)
  config = scope['get_config']()
  config.data.heldout = 0.0
  experiment = build(Experiment, config)
  start = check_start(experiment, tmp_path / 'run', trains_vae=True)
  tokenizer = start.tokenizer
  assert {n: len(task) for n, task in start.tasks.items()} == dict.fromkeys(
    ('draw', 'read', 'ask', 'edit'), 2
  )
  # Few as the texts are, they can be read again.
  assert tokenizer.decode(tokenizer.encode('a red fox')) == 'a red fox'


def test_a_list_of_images_by_hand_is_that_of_the_command(blocks, tmp_path):
  photos, by_hand = tmp_path / 'photos', blocks['python'][0]
  for name in ('red_fox-03.png', 'a_small_blue_star-120.png'):
    PIL.Image.new('RGB', (4, 4)).save(photos / name)
  exec(by_hand, {})
  file = photos / 'captions.jsonl'
  found = [json.loads(line) for line in file.read_text().splitlines()]
  make_index(photos).write(file)
  assert found == [json.loads(line) for line in file.read_text().splitlines()]


def test_commands_name_modules_and_configs_that_exist(blocks):
  commands = ''.join(blocks['bash'])
  modules = re.findall(r'python -m (\S+)', commands)
  files = re.findall(r'(?:launch|experiments)/\w+\.(?:sh|py)', commands)
  assert len(modules) > 3 and len(files) > 2
  for name in (*(m.replace('.', '/') + '.py' for m in modules), *files):
    assert (ROOT / name).exists(), name
