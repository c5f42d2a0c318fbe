"""Gemma's tokenizer.json to a SentencePiece model.

Hugging Face's file holds the same pieces as `tokenizer.model`, and in place of
their scores the merges in order (huggingface/tokenizers, 'BPE'). SentencePiece
merges the neighbors whose piece has the highest score, so a piece's score is
minus the rank of its first merge.
"""

import pathlib
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json

_SPACE = '\u2581'
_SPECIAL = ('pad', 'eos', 'bos', 'unk')
# Gemma 1's and 2's files spell this byte out; SentencePiece needs all 256.
_TAB, _TAB_BYTE = '\t', '<0x09>'
# The module is generated, so type checkers see nothing in it.
model_pb2: Any = sentencepiece_model_pb2
_TYPES = model_pb2.ModelProto.SentencePiece


def convert_tokenizer(source: pathlib.Path) -> bytes:
  """A SentencePiece model of a tokenizer.json.

  Args:
    source: The file.

  Returns:
    The content of a `.model` file that `Tokenizer` reads.

  Raises:
    UserError: The file is not a byte-pair vocabulary of Gemma's kind.
  """
  try:
    content = source.read_bytes()
    lfs.check(content, source)
    serialized = _convert(parse_json(content), source)
  except OSError as error:
    raise UserError(f'cannot read {source}: {error.strerror}') from error
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise UserError(
      f'{source} is not a tokenizer.json with a vocabulary and merges '
      f'({type(error).__name__}: {error}); a checkpoint is named by its folder'
    ) from error
  Tokenizer(serialized, str(source))
  return serialized


def _convert(content: Any, source: pathlib.Path) -> bytes:
  """Converts the content of a tokenizer.json."""
  model = content['model']
  vocabulary, merges = model['vocab'], model['merges']
  added = {t['content']: t for t in content.get('added_tokens') or []}
  _check(content, added, source)
  pieces = {index: piece for piece, index in vocabulary.items()}
  pieces |= {token['id']: piece for piece, token in added.items()}
  if _TAB_BYTE not in vocabulary and _TAB in vocabulary:
    pieces[vocabulary[_TAB]] = _TAB_BYTE
  count = len({*vocabulary, *added})
  if sorted(pieces) != list(range(count)):
    raise UserError(
      f'{source} has gaps in its ids or one twice; SentencePiece has none'
    )
  scores = _scores(merges)
  proto = model_pb2.ModelProto()
  for index in range(len(pieces)):
    piece = pieces[index]
    kind = _type(piece, added)
    is_normal = kind == _TYPES.NORMAL
    proto.pieces.add(
      piece=piece,
      # What no merge makes is never looked up by its score.
      score=scores.get(piece, -float(len(merges) + index)) if is_normal else 0,
      type=kind,
    )
  _describe(proto, pieces)
  return proto.SerializeToString()


def _check(
  content: dict[str, Any], added: dict[str, Any], source: pathlib.Path
) -> None:
  """Checks that all the file does to a text is what SentencePiece does."""
  model, space = content['model'], {'String': ' '}
  normalizer = content.get('normalizer') or {}
  steps = normalizer.get('normalizers', [normalizer])
  # Splitting at spaces, which are replaced by then, does nothing.
  splits = content.get('pre_tokenizer') or {'type': 'Split', 'pattern': space}
  is_gemma = (
    model['type'] == 'BPE'
    and model.get('byte_fallback')
    and not model.get('ignore_merges')
    and [(s.get('type'), s.get('pattern'), s.get('content')) for s in steps]
    == [('Replace', space, _SPACE)]
    and (splits.get('type'), splits.get('pattern')) == ('Split', space)
    and not any(
      token.get(key)
      for token in added.values()
      for key in ('lstrip', 'rstrip', 'single_word')
    )
  )
  if not is_gemma:
    raise UserError(
      f'{source} is a {model["type"]} vocabulary that SentencePiece cannot '
      "repeat; use Gemma's tokenizer.model"
    )


def _scores(merges: list[Any]) -> dict[str, float]:
  scores: dict[str, float] = {}
  for rank, merge in enumerate(merges):
    # Older files write the two as one text.
    pair = merge.split(' ') if isinstance(merge, str) else merge
    scores.setdefault(''.join(pair), -float(rank))
  return scores


def _type(piece: str, added: dict[str, Any]) -> int:
  if piece == '<unk>':
    return _TYPES.UNKNOWN
  if piece in {f'<{name}>' for name in _SPECIAL}:
    return _TYPES.CONTROL
  if len(piece) == 6 and piece.startswith('<0x') and piece.endswith('>'):
    return _TYPES.BYTE
  # What is added is looked for before spaces are replaced, so never this.
  is_found = piece in added and _SPACE not in piece
  return _TYPES.USER_DEFINED if is_found else _TYPES.NORMAL


def _describe(proto: Any, pieces: dict[int, str]) -> None:
  """How to tokenize with the pieces: Gemma's own settings."""
  ids = {piece: index for index, piece in pieces.items()}
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  trainer.model_type = model_pb2.TrainerSpec.BPE
  trainer.vocab_size = len(pieces)
  trainer.byte_fallback = True
  for name in _SPECIAL:
    setattr(trainer, f'{name}_id', ids.get(f'<{name}>', -1))
    setattr(trainer, f'{name}_piece', f'<{name}>')
  normalizer.name = 'identity'
  normalizer.add_dummy_prefix = False
  normalizer.remove_extra_whitespaces = False
  normalizer.escape_whitespaces = True
