"""The sampling command line writes what it says."""

import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest

from tests import process
from unifluid_jax import inference

pytestmark = pytest.mark.slow


def test_images_and_texts(finished, tmp_path):
  drawn, edited, told = (tmp_path / name for name in ('a', 'b', 'c'))
  run = f'--workdir={finished}'
  arguments = [run, '--task=generate', '--prompt=fox', '--prompt=a red apple']
  output = process.succeed(
    'sample', *arguments, f'--out={drawn}', '--samples=2', '--guidance=1.5'
  )
  names = ['0000_0.png', '0000_1.png', '0001_0.png', '0001_1.png']
  assert sorted(path.name for path in drawn.iterdir()) == [
    *names,
    'samples.json',
    'sheet.png',
  ]
  assert 'a red apple -> 0001_1.png' in output
  written = json.loads((drawn / 'samples.json').read_text())
  assert [sample['file'] for sample in written['samples']] == names
  assert written['samples'][1]['prompt'] == 'fox'
  assert written['sampling']['guidance']['scale'] == 1.5
  assert written['sampling']['head_steps'] == 2  # the config's
  images = [np.asarray(PIL.Image.open(drawn / name)) for name in names]
  assert {image.shape for image in images} == {(16, 16, 3)}
  assert len({image.tobytes() for image in images}) == 4

  image = f'--image={drawn / names[0]}'
  process.succeed(
    'sample',
    run,
    '--task=edit',
    image,
    '--instruction=flip it',
    '--instruction=make it pink',
    f'--out={edited}',
  )
  assert (edited / '0001_0.png').exists()
  settings = json.loads((edited / 'samples.json').read_text())['sampling']
  assert settings['guidance']['scale'] == 1.0  # of the config's edit_sampling

  # Of another size and mode, and with a name that is no text.
  photograph = tmp_path / os.fsdecode(b'photo\xff.png')
  PIL.Image.new('LA', (40, 25), (90, 255)).save(photograph)
  process.succeed(
    'sample',
    run,
    '--task=answer',
    f'--image={photograph}',
    '--question=what is this?',
    f'--out={told}',
    '--temperature=1',
    '--max_tokens=3',
    '--seed=5',
  )
  written = json.loads((told / 'samples.json').read_text())
  assert written['seed'] == 5
  assert written['sampling']['max_tokens'] == 3
  (sample,) = written['samples']
  assert sample['question'] == 'what is this?'
  assert isinstance(sample['text'], str)
  assert sample['image'] == str(photograph)


def test_painting(finished, tmp_path):
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 256, (16, 16, 3), np.uint8)
  left = np.zeros((16, 16), np.uint8)
  left[:, :7] = 255
  for name, pixels in (('picture', picture), ('left', left)):
    PIL.Image.fromarray(pixels).save(tmp_path / f'{name}.png')
  process.succeed(
    'sample',
    f'--workdir={finished}',
    '--task=paint',
    f'--image={tmp_path}/picture.png',
    f'--mask={tmp_path}/left.png',
    '--prompt=fox',
    '--samples=2',
    f'--out={tmp_path}/out',
  )
  painted = [
    np.asarray(PIL.Image.open(tmp_path / 'out' / f'0000_{i}.png'))
    for i in range(2)
  ]
  for image in painted:
    np.testing.assert_array_equal(image[:, 7:], picture[:, 7:])
    assert (image[:, :7] != picture[:, :7]).any()
  assert (painted[0] != painted[1]).any()

  model = inference.load(finished)
  everything, nothing = np.ones((16, 16), bool), np.zeros((16, 16), bool)
  whole, kept = model.paint(
    [picture] * 2, [everything, nothing], ['fox'] * 2, seed=3
  ).images
  drawn = model.generate(['fox'], seed=3).images
  np.testing.assert_array_equal(whole, drawn[0])
  np.testing.assert_array_equal(kept, picture)
  # A mask is cut out and resized like its image.
  wide = np.zeros((40, 60, 3), np.uint8)
  corner = np.zeros((40, 60), bool)
  corner[30:, 40:] = True
  (image,) = model.paint([wide], [corner], ['fox']).images
  assert not image[:11].any() and not image[:, :11].any()
  assert image[12:, 12:].any()


def test_what_is_written_does_not_depend_on_the_devices(finished, tmp_path):
  results = []
  for devices, tensor in ((1, 1), (8, 2)):
    drawn, told = (tmp_path / f'{name}{devices}' for name in ('drawn', 'told'))
    run = [f'--workdir={finished}', f'--tensor={tensor}']
    process.succeed(
      'sample',
      *run,
      '--task=generate',
      '--prompt=fox',
      '--prompt=bell',
      '--samples=3',
      '--guidance=2',
      f'--out={drawn}',
      devices=devices,
    )
    process.succeed(
      'sample',
      *run,
      '--task=caption',
      *(f'--image={tmp_path}/drawn1/0001_{i}.png' for i in range(3)),
      f'--out={told}',
      devices=devices,
    )
    files = sorted(drawn.glob('0*.png'))
    assert len(files) == 6
    pixels = np.stack([PIL.Image.open(file) for file in files]).astype(int)
    texts = json.loads((told / 'samples.json').read_text())['samples']
    results.append((pixels, texts))
  (pixels, texts), (others, other_texts) = results
  assert abs(pixels - others).max() <= 1
  assert texts == other_texts
  message = process.fail(
    'sample',
    *run[:1],
    '--task=generate',
    '--prompt=fox',
    '--tensor=3',
    f'--out={tmp_path}/none',
    devices=8,
  )
  assert 'the 8 devices' in message and 'to 2 or 4; it is 3' in message


def test_images_are_written_in_the_order_that_training_ended_with(finished):
  """Which is random order where it was stopped before raster order."""
  file = finished / 'config.json'
  config = json.loads(file.read_text())
  config['training'] |= {'order': 'anneal', 'anneal_steps': [2, 6]}
  file.write_text(json.dumps(config))
  orders = []
  for _ in range(2):
    drawn = inference.load(finished).generate(['fox'], samples=3)
    orders.append(drawn.positions.tolist())
    shutil.rmtree(finished / 'checkpoints' / '6', ignore_errors=True)
  raster = list(range(4))
  assert orders[0] == [raster] * 3
  assert orders[1] != orders[0]
  assert [sorted(order) for order in orders[1]] == [raster] * 3
