"""Folders of captioned images for the tests."""

import json
import pathlib
from collections.abc import Sequence

import ml_collections
import PIL.Image

from tests.configs import tiny


def write_lines(folder: pathlib.Path, texts: Sequence[str]) -> pathlib.Path:
  """Writes a JSONL file of captions, all of one image."""
  PIL.Image.new('RGB', (16, 16), 'red').save(folder / 'red.png')
  file = folder / 'captions.jsonl'
  lines = [json.dumps({'image': 'red.png', 'text': text}) for text in texts]
  file.write_text('\n'.join(lines) + '\n')
  return file


def own_config(file: pathlib.Path) -> ml_collections.ConfigDict:
  """The tiny config for a JSONL file, which is drawn and captioned."""
  config = tiny.get_config(str(file))
  draw = config.data.sources.text_to_image.to_dict()
  read = draw | {'task': 'captioning', 'weight': 3.0}
  config.data.sources = {'draw': draw, 'read': read}
  return config
