"""The benchmark command, whose figures must belong together."""

import json

import pytest

from tests import process

pytestmark = pytest.mark.slow

_CONFIG = f'--config={process.CONFIG}'


def test_figures_belong_together(tmp_path):
  file = tmp_path / 'bench.json'
  output = process.succeed(
    'bench',
    _CONFIG,
    '--config.data.examples=2',  # as many as have room for sure
    '--config.text_sampling.max_tokens=4',
    '--steps=3',
    '--repeats=1',
    '--images=3',
    f'--json={file}',
  )
  figures = json.loads(file.read_text())
  assert _CONFIG in figures['flags']
  assert figures['devices'] == 1
  # Two rows of 128 slots; each example has one image.
  step = figures['train_step_s']
  assert figures['tokens_per_s'] * step == pytest.approx(2 * 128)
  assert figures['images_per_s'] * step == pytest.approx(2)
  assert (
    figures['train_step_fastest_s'] <= step <= figures['train_step_slowest_s']
  )
  assert figures['train_compile_s'] > step
  assert figures['image_first_s'] > 3 * figures['image_s']
  rest = 3e-3 * figures['text_token_ms']
  assert 3 * figures['text_s'] == pytest.approx(
    1e-3 * figures['text_first_token_ms'] + rest
  )
  for name, value in figures.items():
    if isinstance(value, float):
      # That of a further token is a difference, of two short times here.
      assert value > 0 or name == 'text_token_ms'
      assert any(line.split()[0] == name for line in output.splitlines())


def test_a_file_that_cannot_be_written_is_told_first():
  message = process.fail('bench', _CONFIG, '--json=none/bench.json')
  assert message.startswith('--json=none/bench.json: No such file')
