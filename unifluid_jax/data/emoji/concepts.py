"""Named sets of concepts.

A concept is a base emoji; its skin tones belong to it. `quickstart` was chosen
by eye and by measure: its concepts are drawn alike by the artists, so a
drawing that training never saw is recognizable from the others.
"""

import functools
import hashlib
from collections.abc import Callable

from unifluid_jax.data.emoji.catalog import Emoji, load_catalog
from unifluid_jax.utils.errors import UserError

DRAWN_ALIKE = (
  # people and body; all have skin tones
  *('thumbs up', 'flexed biceps', 'raised hand', 'raising hands'),
  *('call me hand', 'crossed fingers', 'victory hand', 'ok hand'),
  *('backhand index pointing down', 'ear'),
  # smileys and emotion
  *('red heart', 'orange heart', 'yellow heart', 'green heart'),
  *('blue heart', 'purple heart', 'cowboy hat face', 'alien'),
  'smiling face with sunglasses',
  # animals and nature
  *('fox', 'bear', 'rabbit face', 'wolf', 'dog face', 'camel', 'turtle'),
  *('duck', 'cactus', 'evergreen tree', 'sunflower', 'shamrock'),
  'cherry blossom',
  # food and drink
  *('banana', 'red apple', 'watermelon', 'carrot', 'bread'),
  *('baguette bread', 'cheese wedge', 'cookie', 'soft ice cream'),
  *('glass of milk', 'wine glass', 'cocktail glass'),
  # travel and places
  *('star', 'rainbow', 'umbrella', 'droplet', 'snowflake', 'cloud'),
  *('high voltage', 'crescent moon', 'sunrise', 'airplane', 'automobile'),
  # activities
  *('magic wand', 'balloon', 'chess pawn', 'spade suit', 'teddy bear'),
  # objects
  *('glasses', 'light bulb', 'bell', 'key', 'door', 'candle', 'violin'),
  *('graduation cap', 'syringe'),
  # symbols
  *('red circle', 'orange circle', 'yellow circle', 'green circle'),
  *('blue circle', 'purple circle', 'warning', 'prohibited'),
)
"""Concepts that all artists draw much alike. No split holds one of them out as
a whole, so a change of this list would move the splits."""

_TOO_MANY = (
  # hands: six skin tones each, which would be half of all images
  *('flexed biceps', 'raising hands', 'call me hand', 'crossed fingers'),
  *('ok hand', 'backhand index pointing down', 'ear'),
  *('orange heart', 'cowboy hat face', 'orange circle', 'purple circle'),
)
QUICKSTART = tuple(name for name in DRAWN_ALIKE if name not in _TOO_MANY)
"""Names of the quickstart's concepts."""


def _is_drawn_alike(emoji: Emoji) -> bool:
  return emoji.concept in DRAWN_ALIKE


def _is_quickstart(emoji: Emoji) -> bool:
  return emoji.concept in QUICKSTART


def _is_untoned(emoji: Emoji) -> bool:
  """Neither skin tones, nor flags, nor letters and digits on buttons."""
  return (
    len(load_catalog().families[emoji.base]) == 1
    and emoji.group != 'flags'
    and emoji.subgroup not in ('alphanumeric symbols', 'keypad characters')
  )


def _is_animal_or_food(emoji: Emoji) -> bool:
  return emoji.group in ('animals and nature', 'food and drink')


def _some_untoned(count: int) -> Callable[[Emoji], bool]:
  """The first untoned concepts in an order by hash: a fair sample of them."""

  @functools.cache
  def chosen() -> frozenset[str]:
    bases = [base.hex for base in concepts_of('untoned')]
    by_hash = sorted(bases, key=lambda h: hashlib.sha256(h.encode()).digest())
    return frozenset(by_hash[:count])

  return lambda emoji: emoji.base in chosen()


CONCEPT_SETS: dict[str, Callable[[Emoji], bool]] = {
  'drawn_alike': _is_drawn_alike,
  'quickstart': _is_quickstart,
  'animals_food': _is_animal_or_food,
  'untoned': _is_untoned,
  'untoned_130': _some_untoned(130),
  'untoned_290': _some_untoned(290),
  'all': lambda emoji: True,
}


@functools.cache
def concepts_of(name: str) -> tuple[Emoji, ...]:
  """The concepts of a named set, each as its untoned emoji.

  Args:
    name: A key of CONCEPT_SETS.

  Raises:
    UserError: There is no such set.
  """
  if name not in CONCEPT_SETS:
    raise UserError(
      f'unknown concept set {name!r}; choose one of {", ".join(CONCEPT_SETS)}.'
    )
  families = load_catalog().families.values()
  return tuple(f[0] for f in families if CONCEPT_SETS[name](f[0]))
