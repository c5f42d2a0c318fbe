"""Named sets of concepts.

A concept is a base emoji; its skin tones belong to it. `quickstart` was chosen
by eye and by measure: its concepts are drawn alike by the artists, so a
drawing that training never saw is recognisable from the other three.
"""

import functools
from collections.abc import Callable

from unifluid_jax.data.emoji.catalog import Emoji, load_catalog
from unifluid_jax.errors import UserError

QUICKSTART = (
  # people and body; all have skin tones
  *('thumbs up', 'raised hand', 'victory hand'),
  # smileys and emotion
  *('red heart', 'yellow heart', 'green heart'),
  *('blue heart', 'purple heart', 'alien'),
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
  *('red circle', 'yellow circle', 'green circle', 'blue circle'),
  *('warning', 'prohibited'),
)
"""Names of the quickstart's concepts."""


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


CONCEPT_SETS: dict[str, Callable[[Emoji], bool]] = {
  'quickstart': _is_quickstart,
  'animals_food': _is_animal_or_food,
  'untoned': _is_untoned,
  'all': lambda emoji: True,
}


@functools.cache
def concepts_of(name: str) -> tuple[Emoji, ...]:
  """The concepts of a named set, each as its untoned emoji.

  Args:
    name: A key of CONCEPT_SETS.

  Raises:
    UserError: If there is no such set.
  """
  if name not in CONCEPT_SETS:
    raise UserError(
      f'There is no concept set {name!r}; choose one of '
      f'{", ".join(CONCEPT_SETS)}.'
    )
  families = load_catalog().families.values()
  return tuple(f[0] for f in families if CONCEPT_SETS[name](f[0]))
