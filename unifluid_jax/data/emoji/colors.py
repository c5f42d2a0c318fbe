"""Named colors: of backgrounds, and in the names of color families."""

import collections
import functools
from collections.abc import Mapping

from unifluid_jax.data.emoji.catalog import Emoji, load_catalog

BACKGROUNDS = {
  'white': (255, 255, 255),
  'gray': (176, 176, 176),
  'black': (32, 32, 32),
  'pink': (255, 184, 208),
  'orange': (255, 190, 120),
  'yellow': (255, 240, 140),
  'light green': (176, 230, 160),
  'light blue': (160, 212, 250),
  'purple': (204, 176, 240),
}
"""RGB of the background colors, by the name that prompts use."""

FAMILY_COLORS = (
  'red',
  'pink',
  'orange',
  'yellow',
  'green',
  'light blue',
  'blue',
  'purple',
  'brown',
  'black',
  'gray',
  'white',
)

FAMILY_THINGS = ('heart', 'circle', 'square', 'book')


@functools.cache
def color_families() -> Mapping[str, Mapping[str, Emoji]]:
  """Emoji that differ in color only: thing -> color -> emoji.

  The members are the concepts whose name is a color and the thing ('red
  heart', 'blue book').
  """
  by_name = {emoji.name: emoji for emoji in load_catalog().emojis.values()}
  families: dict[str, dict[str, Emoji]] = collections.defaultdict(dict)
  for thing in FAMILY_THINGS:
    for color in FAMILY_COLORS:
      if (name := f'{color} {thing}') in by_name:
        families[thing][color] = by_name[name]
  return dict(families)


@functools.cache
def thing_and_color() -> Mapping[str, tuple[str, str]]:
  """The thing and the color of each color family's member, by hex."""
  return {
    emoji.hex: (thing, color)
    for thing, members in color_families().items()
    for color, emoji in members.items()
  }
