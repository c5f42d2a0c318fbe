"""The vocabulary of a folder's texts."""

import json

from unifluid_jax.data.sources import FolderTask
from unifluid_jax.data.vocabulary import train_tokenizer


def test_a_folder_is_read_without_its_images(tmp_path):
  """Each text is covered, the rarest one of several to draw from too."""
  (tmp_path / 'a.png').write_bytes(b'nothing to decode')
  texts = [['a fox', 'ein Fuchs', 'une renarde Ωß'], 'two owls']
  file = tmp_path / 'data.jsonl'
  file.write_text(
    '\n'.join(json.dumps({'image': 'a.png', 'text': text}) for text in texts)
  )
  task = FolderTask(file, 'captioning', image_size=4)
  tokenizer = train_tokenizer({'mine': task}, 300, tmp_path / 'x.model')
  # What it was not trained on it spells in bytes, two for each of these.
  assert len(tokenizer.encode('Ωß')) == 2
  assert len(tokenizer.encode('Ææ')) == 4
