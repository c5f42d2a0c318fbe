"""Text to token ids, with SentencePiece.

Small configs train a vocabulary on the text of their tasks; full configs load
Gemma's `tokenizer.model`. Both go through this one class.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import sentencepiece

from unifluid_jax.data.model_file import read_model
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import AnyPath, to_path, write_whole

SEPARATOR = '\n'
BOI = '<start_of_image>'
# Stands in for BOI in a Gemma vocabulary that does not have it.
UNUSED = '<unused0>'

_LONGEST = 4192
"""Bytes beyond which SentencePiece leaves a text out, unless told otherwise."""

_RESERVED = '\u2585'
"""SentencePiece leaves out a text that has this character."""


class Tokenizer:
  """A SentencePiece vocabulary with the special tokens that a row needs.

  `encode` adds no special token: the layout of an example does.

  Attributes:
    pad_id: Fills slots that hold no text.
    eos_id: Ends a text target.
    bos_id: Begins the text of a prefix.
    unk_id: Stands for what the vocabulary cannot spell.
    separator_id: Ends a prefix; the newline piece.
    boi_id: Asks for the first token of an image.
    vocab_size: Number of pieces.
    model: The content of its `.model` file.
    fingerprint: SHA-256 of the model, in hexadecimal.
  """

  def __init__(self, model: bytes, name: str = 'tokenizer'):
    """Reads a serialized SentencePiece model.

    Args:
      model: The content of a `.model` file.
      name: What error messages call it.

    Raises:
      UserError: It is no SentencePiece model, or lacks a special token.
    """
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
      raise UserError(
        f'{name} is not a SentencePiece model; is the file complete?'
      ) from error
    self.pad_id = self._processor.pad_id()
    self.eos_id = self._processor.eos_id()
    self.bos_id = self._processor.bos_id()
    self.unk_id = self._processor.unk_id()
    self.separator_id = self._find(SEPARATOR)
    self.boi_id = self._find(BOI, UNUSED)
    self.vocab_size = self._processor.GetPieceSize()
    self.model = model
    self.fingerprint = hashlib.sha256(model).hexdigest()
    for special in ('pad', 'eos', 'bos', 'separator', 'boi'):
      if getattr(self, f'{special}_id') < 0:
        raise UserError(
          f"{name} has no {special} token; use Gemma's tokenizer.model or one "
          'made by Tokenizer.train'
        )

  def _find(self, *pieces: str) -> int:
    """The id of the first of the pieces that the vocabulary has, or -1."""
    ids = (self._processor.PieceToId(piece) for piece in pieces)
    return next((i for i in ids if i != self.unk_id), -1)

  @classmethod
  def load(cls, path: str | AnyPath) -> 'Tokenizer':
    """Reads a `.model` file, such as Gemma's `tokenizer.model`.

    Raises:
      UserError: The file is missing or is no usable model.
    """
    return cls(read_model(path), name=str(path))

  @classmethod
  def train(
    cls,
    texts: Iterable[str],
    vocab_size: int,
    path: str | AnyPath | None = None,
  ) -> 'Tokenizer':
    """Trains a byte-pair vocabulary.

    The same texts in the same order give the same model. Text round-trips
    exactly: nothing is normalized, and what no piece covers falls back to
    bytes. Ids of pad, eos, bos and unk are 0, 1, 2 and 3, as in Gemma.

    Args:
      texts: What the vocabulary should be good at.
      vocab_size: Most pieces, 262 of which are special tokens and bytes; a few
        short texts make no more than they have.
      path: Where to write the `.model` file; None to keep it in memory.

    Raises:
      UserError: The texts do not allow for a vocabulary of this size.
    """
    # Not read by the trainer, which makes its own of what a reader raises.
    texts = [text.replace(_RESERVED, ' ') for text in texts]
    model = io.BytesIO()
    longest = max((len(text.encode()) for text in texts), default=0)
    # The option is part of the model, so it is only given where it is needed.
    options: dict[str, Any] = {}
    if longest > _LONGEST:
      options = {'max_sentence_length': longest}
    try:
      sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type='bpe',
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece='<pad>',
        eos_piece='<eos>',
        bos_piece='<bos>',
        unk_piece='<unk>',
        user_defined_symbols=[SEPARATOR, BOI],
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        normalization_rule_name='identity',
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
        **options,
      )
    except RuntimeError as error:
      reason = str(error).rpartition(']')[2].strip() or 'there is no text'
      raise UserError(
        f'tokenizer.vocab_size is {vocab_size}, of which no vocabulary can be '
        f'trained on these texts: {reason}'
      ) from error
    tokenizer = cls(model.getvalue())
    if path is not None:
      tokenizer.save(path)
    return tokenizer

  def save(self, path: str | AnyPath) -> None:
    """Saves the `.model` file."""
    write_whole(to_path(str(path)), self.model)

  def encode(self, text: str) -> list[int]:
    """Token ids of a text, without BOS or EOS.

    Raises:
      UserError: The text is not valid Unicode, such as bytes of another
        encoding.
    """
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise UserError(f'the text {text!r} is not valid Unicode') from error
    return self._processor.Encode(text)

  def encode_line(self, text: str) -> list[int]:
    """Token ids of a text with its line breaks as spaces.

    The newline piece is the separator, which would end a prefix early.

    Raises:
      UserError: The text is not valid Unicode.
    """
    return self.encode(one_line(text))

  def count_lines(self, texts: Sequence[str]) -> list[int]:
    """Numbers of tokens of many texts, as `encode_line` gives them.

    The texts are valid Unicode.
    """
    encoded = self._processor.Encode([one_line(text) for text in texts])
    return [len(ids) for ids in encoded]

  def decode(self, ids: Iterable[SupportsIndex]) -> str:
    """The text of token ids; pad, eos and bos read as nothing."""
    return self._processor.Decode([int(i) for i in ids])


def one_line(text: str) -> str:
  """A text with its line breaks as spaces."""
  return ' '.join(text.splitlines())
