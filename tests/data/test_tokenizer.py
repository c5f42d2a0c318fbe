"""The tokenizer: ids, round trips, Gemma's vocabulary, errors."""

import io
import pickle

import pytest
import sentencepiece

from tests.data.counting_task import CountingTask
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.data.vocabulary import train_tokenizer
from unifluid_jax.utils.errors import UserError

TEXTS = [
  'a fox, noto style',
  'a red apple, twemoji style',
  'what is this?\na fox',
  'how many apples are there? 12',
] * 4


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory) -> Tokenizer:
  path = tmp_path_factory.mktemp('tokenizer') / 'small.model'
  return Tokenizer.train(TEXTS, 330, path)


def gemma_like(pieces: list[str], **options) -> bytes:
  """A model with Gemma's special ids and some pieces of its vocabulary."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(TEXTS),
    model_writer=model,
    vocab_size=310,
    model_type='bpe',
    byte_fallback=True,
    add_dummy_prefix=False,
    user_defined_symbols=pieces,
    minloglevel=2,
    **{'pad_id': 0, 'eos_id': 1, 'bos_id': 2, 'unk_id': 3} | options,
  )
  return model.getvalue()


@pytest.mark.parametrize('error', [KeyboardInterrupt, UserError])
def test_what_texts_raise_is_no_fault_of_the_vocabulary(error, tmp_path):
  def texts():
    yield 'a fox'
    raise error('at the second text')

  with pytest.raises(error, match='^at the second text$'):
    Tokenizer.train(texts(), 330, tmp_path / 'none.model')


def test_a_task_without_records_has_no_texts(tmp_path):
  tasks = {'some': CountingTask('some', 9), 'empty': CountingTask('empty', 0)}
  with pytest.raises(UserError, match="the task 'empty' has no records"):
    train_tokenizer(tasks, 280, tmp_path / 'none.model')


def test_ids_are_gemmas(tokenizer):
  ids = [tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id]
  assert ids == [0, 1, 2, 3]
  assert tokenizer.vocab_size == 330


def test_the_separator_is_one_token_everywhere(tokenizer):
  assert tokenizer.encode('\n') == [tokenizer.separator_id]
  assert tokenizer.encode('a\na').count(tokenizer.separator_id) == 1
  assert tokenizer.encode('<start_of_image>') == [tokenizer.boi_id]


@pytest.mark.parametrize(
  'text',
  [
    'a fox, noto style',
    '  two  spaces ',
    'Ünïcödé 日本 🦊 ①',
    'a\nb\r\n\tc',
    '',
    '0123',
  ],
)
def test_round_trip(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.unk_id not in ids
  assert tokenizer.decode(ids) == text


def test_seen_words_take_fewer_tokens_than_letters(tokenizer):
  assert len(tokenizer.encode('a fox, noto style')) < 12
  assert len(tokenizer.encode('12')) == 2, 'digits are split'


def test_special_tokens_read_as_nothing(tokenizer):
  ids = [tokenizer.bos_id, *tokenizer.encode('fox'), tokenizer.eos_id, 0, 0]
  assert tokenizer.decode(ids) == 'fox'


def test_training_is_deterministic_and_load_gives_the_same(tokenizer, tmp_path):
  again = Tokenizer.train(iter(TEXTS), 330, tmp_path / 'again.model')
  other = Tokenizer.train(TEXTS, 320, tmp_path / 'other.model')
  loaded = Tokenizer.load(tmp_path / 'again.model')
  assert again.fingerprint == tokenizer.fingerprint == loaded.fingerprint
  assert other.fingerprint != tokenizer.fingerprint
  assert loaded.encode('a fox') == tokenizer.encode('a fox')


def test_survives_the_way_to_a_worker(tokenizer):
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.encode('a fox') == tokenizer.encode('a fox')
  assert copy.fingerprint == tokenizer.fingerprint


def test_gemma_vocabulary_with_an_image_token():
  pieces = ['<mask>', '<unused0>', '<unused1>', '\n', '<start_of_image>']
  tokenizer = Tokenizer(gemma_like(pieces))
  assert (tokenizer.separator_id, tokenizer.boi_id) == (7, 8)


def test_gemma_vocabulary_without_an_image_token():
  tokenizer = Tokenizer(gemma_like(['<mask>', '<unused0>', '<unused1>', '\n']))
  assert (tokenizer.separator_id, tokenizer.boi_id) == (7, 5)


@pytest.mark.parametrize(
  ('pieces', 'options', 'lack'),
  [
    (['\n'], {}, 'boi'),
    (['<unused0>'], {}, 'separator'),
    (['\n', '<unused0>'], {'pad_id': -1}, 'pad'),
  ],
)
def test_a_vocabulary_without_a_special_token(pieces, options, lack):
  with pytest.raises(UserError, match=f'mine has no {lack} token'):
    Tokenizer(gemma_like(pieces, **options), name='mine')


def test_a_missing_file(tmp_path):
  with pytest.raises(UserError, match=r'none\.model: No such file'):
    Tokenizer.load(tmp_path / 'none.model')


@pytest.mark.parametrize('keep', [0, 100, 1500, -50])
def test_a_corrupt_file(tokenizer, tmp_path, keep):
  path = tmp_path / 'cut.model'
  Tokenizer.train(TEXTS, 330, path)
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match=r'cut\.model'):
    Tokenizer.load(path)


@pytest.mark.parametrize(
  ('texts', 'size', 'reason'),
  [
    (TEXTS, 262, 'smaller than required'),
    ([], 330, 'there is no text'),
  ],
)
def test_texts_that_do_not_allow_for_the_vocabulary(
  tmp_path, texts, size, reason
):
  with pytest.raises(UserError, match=f'vocab_size is {size}, .*{reason}'):
    Tokenizer.train(texts, size, tmp_path / 'never.model')
  assert not list(tmp_path.iterdir())


def test_a_few_texts_make_a_vocabulary_of_what_they_have(tmp_path):
  path = tmp_path / 'small.model'
  small = Tokenizer.train(['a fox', 'two owls'], 512, path)
  assert 262 < small.vocab_size < 300
  assert small.vocab_size == Tokenizer.load(path).vocab_size
  assert small.decode(small.encode('a fox')) == 'a fox'


def test_a_text_that_is_no_unicode(letters):
  """As JSON may hold, or a shell pass on."""
  with pytest.raises(UserError, match='is not valid Unicode'):
    letters.encode('a \udcff')


def test_a_long_text_is_trained_on_like_any_other():
  """SentencePiece by itself leaves out what takes more than 4,192 bytes."""
  word = 'quagga'
  long = ' '.join([word] * 2000)
  for texts in ([long], ['a fox'] * 9 + [long]):
    trained = Tokenizer.train(texts, 300)
    assert len(trained.encode(word)) < len(word)


def test_no_character_keeps_a_text_out_of_the_vocabulary():
  """As SentencePiece's own mark for unknown characters does by itself."""
  trained = Tokenizer.train(['quagga\u2585quagga quagga'] * 4, 300)
  assert len(trained.encode('quagga')) < 6
  assert trained.decode(trained.encode('a\u2585b')) == 'a\u2585b'


def test_lines_are_counted_as_they_are_encoded(tokenizer):
  texts = ['a fox', '', 'a\nb\r\n', 'Ünïcödé 日本', 'a fox ' * 900]
  expected = [len(tokenizer.encode_line(text)) for text in texts]
  assert tokenizer.count_lines(texts) == expected
  assert tokenizer.count_lines([]) == []
