"""tokenizer.json against the tokenizers library."""

import json

import pytest
from tokenizers import (
  Tokenizer as HFTokenizer,
)
from tokenizers import decoders, models, normalizers, trainers

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.tokenizers import convert_tokenizer

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


def test_files_that_spell_out_the_tab(vocabulary, tmp_path):
  """Those of Gemma 1 and 2 hold a tab where its byte should be."""
  content = without_bytes(json.loads(vocabulary.read_text()))
  words = content['model']['vocab']
  words['\t'] = words.pop('<0x09>')
  file = tmp_path / 'tokenizer.json'
  file.write_text(json.dumps(content))
  reference = HFTokenizer.from_file(str(file))
  tokenizer = Tokenizer(convert_tokenizer(file))
  text = 'a\tred\t\tfox'
  expected = reference.encode(text, add_special_tokens=False).ids
  assert tokenizer.encode(text) == expected
  assert tokenizer.decode(expected) == text


def test_added_spaces_are_merged(vocabulary, tmp_path):
  """They are added in Gemma's file, but found by merges alone."""
  content = without_bytes(json.loads(vocabulary.read_text()))
  words, merges = content['model']['vocab'], content['model']['merges']
  for pair in (('\u2581', '\u2581'), ('\u2581\u2581', '\u2581')):
    piece = ''.join(pair)
    words.setdefault(piece, len(words))
    if [*pair] not in merges:
      merges.append([*pair])
    token = content['added_tokens'][-1]
    added = token | {'content': piece, 'id': words[piece], 'special': False}
    content['added_tokens'].append(added | {'normalized': False})
  file = tmp_path / 'tokenizer.json'
  file.write_text(json.dumps(content))
  reference = HFTokenizer.from_file(str(file))
  tokenizer = Tokenizer(convert_tokenizer(file))
  for count in range(1, 9):
    text = 'a' + ' ' * count + 'b'
    expected = reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == expected, count


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
  for key, value in (
    ('pre_tokenizer', {'type': 'Digits'}),
    ('normalizer', None),
    ('model', content['model'] | {'ignore_merges': True}),
    ('added_tokens', [content['added_tokens'][-1] | {'lstrip': True}]),
  ):
    assert 'cannot repeat' in message(content | {key: value})
  for key, value in (
    ('model', {}),
    ('model', content['model'] | {'vocab': list('abc')}),
    ('model', content['model'] | {'merges': [1, 2]}),
    ('model', content['model'] | {'vocab': {'a': 'b'}}),
    ('normalizer', ['Replace']),
    ('added_tokens', ['<pad>']),
    ('added_tokens', [{'id': 0}]),
  ):
    assert 'not a tokenizer.json' in message(content | {key: value})
  assert 'not a tokenizer.json' in message([])
  file.write_text('{')
  with pytest.raises(UserError, match='not a tokenizer.json'):
    convert_tokenizer(file)
  with pytest.raises(UserError, match='cannot read'):
    convert_tokenizer(tmp_path / 'nothing.json')
  gap = json.loads(json.dumps(content))
  for index in (9999, 5):
    gap['model']['vocab']['odd'] = index
    assert 'has gaps in its ids or one twice' in message(gap)
