"""tokenizer.json against the tokenizers library."""

import json

import pytest
from tokenizers import (
  Tokenizer as HFTokenizer,
)
from tokenizers import decoders, models, normalizers, trainers

from unifluid_jax.convert.tokenizers import convert_tokenizer
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.errors import UserError

SENTENCES = [
  'a red fox jumps over the lazy dog',
  '  two  spaces, and a newline\nhere',
  'caf\u00e9 na\u00efve \u4f60\u597d \U0001f98a',
  'answer en how many foxes are there? 12345',
  '<start_of_image>fox',
  '',
]
SPECIAL = ['<pad>', '<eos>', '<bos>', '<unk>']
BYTES = [f'<0x{i:02X}>' for i in range(256)]


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  """A small vocabulary of Gemma's kind: byte-pair with byte fallback."""
  model = HFTokenizer(
    models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True)
  )
  model.normalizer = normalizers.Replace(' ', '\u2581')
  model.decoder = decoders.Sequence(
    [
      decoders.Replace('\u2581', ' '),
      decoders.ByteFallback(),
      decoders.Fuse(),
    ]
  )
  trainer = trainers.BpeTrainer(
    vocab_size=420,
    special_tokens=[*SPECIAL, *BYTES, '\n', '<start_of_image>'],
    show_progress=False,
  )
  model.train_from_iterator(SENTENCES * 3, trainer)
  file = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json'
  model.save(str(file))
  return file


def without_bytes(content):
  """In Gemma's file, bytes are pieces and not added tokens."""
  added = [t for t in content['added_tokens'] if t['content'] not in BYTES]
  return content | {'added_tokens': added}


@pytest.mark.parametrize('merges', ['pairs', 'texts'])
def test_ids_equal_the_tokenizers_library(vocabulary, merges, tmp_path):
  content = without_bytes(json.loads(vocabulary.read_text()))
  if merges == 'texts':
    content['model']['merges'] = [
      ' '.join(pair) for pair in content['model']['merges']
    ]
  file = tmp_path / 'tokenizer.json'
  file.write_text(json.dumps(content))
  reference = HFTokenizer.from_file(str(file))
  tokenizer = Tokenizer(convert_tokenizer(file))
  assert tokenizer.vocab_size == reference.get_vocab_size()
  ids = [tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id]
  assert ids == [0, 1, 2, 3]
  assert tokenizer.boi_id == reference.token_to_id('<start_of_image>')
  assert tokenizer.separator_id == reference.token_to_id('\n')
  for text in SENTENCES:
    expected = reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == expected, text
    assert tokenizer.decode(expected) == text


def test_what_sentencepiece_cannot_repeat(vocabulary, tmp_path):
  content = without_bytes(json.loads(vocabulary.read_text()))
  file = tmp_path / 'tokenizer.json'

  def message(changed):
    file.write_text(json.dumps(changed))
    with pytest.raises(UserError) as raised:
      convert_tokenizer(file)
    return str(raised.value)

  lower = {'type': 'Lowercase'}
  assert 'cannot repeat' in message(content | {'normalizer': lower})
  assert 'cannot repeat' in message(
    content | {'model': content['model'] | {'type': 'WordPiece'}}
  )
  assert 'no tokenizer.json' in message({'model': {}})
  file.write_text('{')
  with pytest.raises(UserError, match='no tokenizer.json'):
    convert_tokenizer(file)
  with pytest.raises(UserError, match='cannot read'):
    convert_tokenizer(tmp_path / 'nothing.json')
  gap = json.loads(json.dumps(content))
  gap['model']['vocab']['odd'] = 9999
  assert 'gaps in its ids' in message(gap)
