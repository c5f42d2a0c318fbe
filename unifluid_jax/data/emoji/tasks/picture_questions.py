"""Questions about one emoji, with answers from its metadata."""

from collections.abc import Sequence

import numpy as np

from unifluid_jax.data.emoji.catalog import TONES, Emoji
from unifluid_jax.data.emoji.colors import thing_and_color
from unifluid_jax.data.emoji.drawing import Drawing
from unifluid_jax.data.emoji.splits import Cell
from unifluid_jax.data.emoji.tasks.emoji_task import pick

WORDINGS = {
  'name': ('what is this?', 'what is in the picture?'),
  'kind': ('what kind is it?', 'what kind of thing is this?'),
  'category': ('what category is it?', 'which category is this?'),
  'is_name': ('is this {name}?', 'does this show {name}?'),
  'is_category': ('is its category {group}?', 'is this in {group}?'),
  'artist': ('which style is it?', 'in which style is this drawn?'),
  'tone': ('which skin tone is it?', 'what is the skin tone?'),
  'background': ('what color is the background?',),
  'color': ('what color is the {thing}?', 'which color is the {thing}?'),
}
"""The question of each type; the first wording is the canonical one."""

YES_NO = ('is_name', 'is_category')


def candidates(kind: str, cell: Cell) -> tuple[Emoji, ...]:
  """Returns the members of a cell that a type of question suits."""
  members = cell.members()
  if kind == 'tone':
    return tuple(emoji for emoji in members if emoji.tone in TONES)
  if kind == 'color':
    return tuple(e for e in members if e.hex in thing_and_color())
  return members


def ask(
  kind: str,
  emoji: Emoji,
  picture: Drawing,
  yes: bool,
  concepts: Sequence[Emoji],
  rng: np.random.Generator,
) -> tuple[dict[str, str], str]:
  """Makes a question about a drawing.

  Args:
    kind: A key of WORDINGS.
    emoji: What the picture shows.
    picture: The picture.
    yes: The answer, where the question is a yes/no question.
    concepts: Where the wrong names and groups of yes/no questions come from.
    rng: Source of the wrong name or group.

  Returns:
    The words that fill the wording's braces, and the answer.
  """
  thing, color = thing_and_color().get(emoji.hex, ('', ''))
  words = {'name': emoji.concept, 'group': emoji.group, 'thing': thing}
  if kind in YES_NO:
    if not yes:
      key = {'is_name': 'concept', 'is_category': 'group'}[kind]
      right = getattr(emoji, key)
      others = [c for c in concepts if getattr(c, key) != right]
      wrong = pick(others, rng)
      words |= {'name': wrong.concept, 'group': wrong.group}
    return words, 'yes' if yes else 'no'
  answers = {
    'name': emoji.concept,
    'kind': emoji.subgroup,
    'category': emoji.group,
    'artist': picture.artist,
    'tone': emoji.tone,
    'background': picture.background,
    'color': color,
  }
  return words, answers[kind]
