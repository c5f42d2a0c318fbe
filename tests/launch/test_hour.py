"""A newcomer's first hour, in tiny: from pictures to a caption of one's own."""

import json
import re

import PIL.Image
import pytest

from tests import pictures, process

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_from_pictures_to_a_caption_of_ones_own(tmp_path):
  photos, told = tmp_path / 'photos', tmp_path / 'told'
  captions = pictures.make(photos, 16)
  output = process.succeed('index', photos)
  file = photos / 'captions.jsonl'
  assert output == (
    f'{file}: 16 images, 16 texts, 16 of them different, from the names of the '
    'files\n'
  )
  lines = [json.loads(line) for line in file.read_text().splitlines()]
  assert {line['image']: line['text'] for line in lines} == captions

  config = f'--config=experiments/own_images.py:path={file},size=16,tiny'
  sheet = tmp_path / 'sheet.png'
  output = process.succeed('show', config, '--source=draw', f'--out={sheet}')
  shown = [line for line in output.splitlines() if '-> <image>' in line]
  assert len(shown) == 8
  assert PIL.Image.open(sheet).width > 100

  run = tmp_path / 'run'
  more = ['--config.data.heldout=0.3', '--config.training.steps=4']
  more += ['--config.training.heldout_every=2']
  output = process.succeed('quickstart', config, f'--workdir={run}', *more)
  assert re.search(r'heldout_loss_image \d', output)
  log = [
    json.loads(x) for x in (run / 'metrics.jsonl').read_text().splitlines()
  ]
  held = [line['step'] for line in log if 'heldout_loss_text' in line]
  assert held == [2, 4]
  metrics = json.loads((run / 'metrics.json').read_text())
  counts = metrics['lines']['captioning']
  assert counts['heldout'] > 0 and counts['train'] + counts['heldout'] == 16
  assert 5 < metrics['t2i_heldout_psnr_db'] < 50
  assert 'Held-out lines' in (run / 'report.html').read_text()
  arguments = [f'--workdir={run}', '--task=caption', f'--out={told}']
  process.succeed('sample', *arguments, f'--image={photos / lines[0]["image"]}')
  (sample,) = json.loads((told / 'samples.json').read_text())['samples']
  assert isinstance(sample['text'], str)


def test_mistakes_with_the_index(tmp_path):
  photos = tmp_path / 'photos'
  pictures.make(photos, 2)
  out = photos / 'captions.jsonl'
  out.write_text('mine')
  (photos / 'a_fox.png').write_bytes(b'no image')
  assert process.fail('index', photos) == (
    f'{out} exists; give another file by --out, or --force to replace it'
  )
  assert out.read_text() == 'mine'
  output = process.succeed('index', photos, '--force')
  assert 'left out, no image that Pillow can read: 1 (a_fox.png)' in output
  assert len(out.read_text().splitlines()) == 2
