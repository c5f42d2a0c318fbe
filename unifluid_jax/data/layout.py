"""Lays an example out in slots.

    [image tokens] [BOS] [text] [SEP] [target text]               reads
    [BOS] [text] [SEP] [BOI, image slots 1..N-1]                  writes
    [image tokens] [BOS] [text] [SEP] [BOI, image slots 1..N-1]   edits

The prefix follows the order of the example's parts: an image takes
`understanding_tokens` slots; BOS stands before the first text (and before SEP
where there is no text), SEP ends the prefix. The picture in
`unifluid_jax/batch.py` shows where targets are predicted.

Where an image is written, the last image before it is the one that is edited:
its source. The source's VAE tokens take no slots, see
`UniFluid.target_embedding`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from unifluid_jax.batch import Kind
from unifluid_jax.data import images
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.utils.errors import UserError

_SHOWN = 200
"""Most letters of a text in a message."""


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
  """Sizes of the parts of an example.

  Attributes:
    understanding_tokens: Soft tokens of an image that is read.
    generated_tokens: Tokens of an image that is written.
    source_tokens: Whether the VAE, too, reads an image that is edited.
    understanding_size: Side in pixels of an image that is read.
    generated_size: Side in pixels of an image that is written.
    max_text: Most tokens of a prefix's text, and most of a target's text.
  """

  understanding_tokens: int
  generated_tokens: int
  source_tokens: bool
  understanding_size: int
  generated_size: int
  max_text: int


class Slots(NamedTuple):
  """One example as L consecutive slots; fields as in `Batch`.

  Slot numbers count from the example's first slot.
  """

  token_ids: Int[np.ndarray, ' L']
  kind: Int[np.ndarray, ' L']
  mask_ar: Int[np.ndarray, ' L']
  text_slots: Int[np.ndarray, ' T']
  text_targets: Int[np.ndarray, ' T']
  understanding_images: UInt8[np.ndarray, 'U S S 3']
  understanding_slots: Int[np.ndarray, ' U']
  source_images: UInt8[np.ndarray, 'E S2 S2 3']
  source_slots: Int[np.ndarray, ' E']
  generated_images: UInt8[np.ndarray, 'G S2 S2 3']
  generated_slots: Int[np.ndarray, ' G']


def drop_condition(
  example: Example, probability: float, rng: np.random.Generator
) -> Example:
  """Empties the prefix of an image's example now and then.

  This teaches the unconditional prediction that classifier-free guidance
  needs (Ho & Salimans, arXiv 2207.12598). Examples with a text target keep
  their prefix.
  """
  if isinstance(example.target, str) or rng.random() >= probability:
    return example
  return dataclasses.replace(example, prefix=())


def lay_out_prefix(
  example: Example,
  tokenizer: Tokenizer,
  config: LayoutConfig,
  generates_image: bool,
) -> Slots:
  """Lays out the prefix, up to and including the separator.

  Args:
    example: The example; its target is not looked at.
    tokenizer: Encodes the texts.
    config: Sizes of the parts.
    generates_image: Whether the target is an image; the last image of the
      prefix is its source then.

  Raises:
    UserError: The text is too long, or an image is no RGB image.
  """
  token_ids: list[int] = []
  kind: list[int] = []
  pictures: list[Image] = []
  image_slots: list[int] = []
  texts = [part for part in example.prefix if isinstance(part, str)]
  encoded = [tokenizer.encode_line(text) for text in texts]
  check_length(' '.join(texts), sum(map(len, encoded)), config)

  def add(ids: list[int], of_kind: Kind) -> None:
    token_ids.extend(ids)
    kind.extend([of_kind] * len(ids))

  unread = iter(encoded)
  for part in example.prefix:
    if isinstance(part, str):
      bos = [] if Kind.TEXT in kind else [tokenizer.bos_id]
      add(bos + next(unread), Kind.TEXT)
    else:
      pictures.append(_fit(part, config.understanding_size, example.task))
      image_slots.append(len(kind))
      pads = [tokenizer.pad_id] * config.understanding_tokens
      add(pads, Kind.UNDERSTANDING)
  if not texts:
    add([tokenizer.bos_id], Kind.TEXT)
  add([tokenizer.separator_id], Kind.TEXT)
  sources = []
  if generates_image and config.source_tokens:
    read = [part for part in example.prefix if not isinstance(part, str)]
    sources = [
      _fit(part, config.generated_size, example.task) for part in read[-1:]
    ]
  return Slots(
    token_ids=_ints(token_ids),
    kind=_ints(kind),
    mask_ar=np.zeros(len(kind), np.int32),
    text_slots=_ints([]),
    text_targets=_ints([]),
    understanding_images=_stack(pictures, config.understanding_size),
    understanding_slots=_ints(image_slots),
    source_images=_stack(sources, config.generated_size),
    source_slots=_ints([len(kind)] * len(sources)),
    generated_images=_stack([], config.generated_size),
    generated_slots=_ints([]),
  )


def lay_out(
  example: Example, tokenizer: Tokenizer, config: LayoutConfig
) -> Slots:
  """Lays out a whole example: its prefix, then its target.

  Raises:
    UserError: A text is too long, or an image is no RGB image.
  """
  writes_text = isinstance(example.target, str)
  prefix = lay_out_prefix(example, tokenizer, config, not writes_text)
  start = len(prefix.kind)
  if isinstance(example.target, str):
    ids = tokenizer.encode_line(example.target)
    check_length(example.target, len(ids), config)
    kind = Kind.TEXT
    target = prefix._replace(
      # The separator predicts the first token, the last token predicts EOS.
      text_slots=np.arange(start - 1, start + len(ids), dtype=np.int32),
      text_targets=_ints([*ids, tokenizer.eos_id]),
    )
  else:
    image = _fit(example.target, config.generated_size, example.task)
    ids = [tokenizer.pad_id] * config.generated_tokens
    ids[0] = tokenizer.boi_id
    kind = Kind.GENERATED
    target = prefix._replace(
      generated_images=image[None], generated_slots=_ints([start])
    )
  count = len(ids)
  return target._replace(
    token_ids=np.append(prefix.token_ids, _ints(ids)),
    kind=np.append(prefix.kind, np.full(count, kind, np.int32)),
    mask_ar=np.append(prefix.mask_ar, np.ones(count, np.int32)),
  )


def check_length(text: str, tokens: int, config: LayoutConfig) -> None:
  """Rejects a text of more than `max_text` tokens.

  Raises:
    UserError: With the text and the numbers.
  """
  if tokens > config.max_text:
    shown = text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'
    raise UserError(
      f'the text {shown!r} takes {tokens} tokens, more than max_text = '
      f'{config.max_text}; shorten it or raise max_text'
    )


def _fit(image: Image, size: int, task: str) -> Image:
  """An image in the size that the model wants."""
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
    raise UserError(
      f'task {task!r} gave an image of shape {image.shape} and type '
      f'{image.dtype}; it must be (height, width, 3) and uint8'
    )
  return images.fit(image, size)


def _stack(pictures: list[Image], size: int) -> UInt8[np.ndarray, 'N S S 3']:
  """Stacks images along a new first axis, which may be empty."""
  return np.array(pictures, np.uint8).reshape(len(pictures), size, size, 3)


def _ints(values: list[int]) -> Int[np.ndarray, ' N']:
  """A vector of int32."""
  return np.array(values, np.int32)
