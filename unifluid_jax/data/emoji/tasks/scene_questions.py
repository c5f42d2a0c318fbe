"""Questions about scenes, with answers from their construction."""

from collections.abc import Sequence

import numpy as np

from unifluid_jax.data.emoji.catalog import Emoji
from unifluid_jax.data.emoji.scenes import QUADRANTS, Scene, arrange
from unifluid_jax.data.emoji.tasks.emoji_task import pick

WORDINGS = {
  'count': ('how many objects are there?', 'how many things are here?'),
  'count_of': ('how many times does {name} appear?',),
  'is_present': ('is {name} in the picture?', 'do you see {name}?'),
  'at': ('what is at the {quadrant}?', 'what is in the {quadrant} corner?'),
  'where': ('where is {name}?', 'in which corner is {name}?'),
  'relation': ('what is {relation} {other}?',),
}
"""The question of each type; the first wording is the canonical one."""

YES_NO = ('is_present',)

RELATIONS = {
  (1, 0): 'left of',
  (1, 1): 'right of',
  (2, 0): 'above',
  (2, 1): 'below',
}
"""By the bit in which two quadrants differ, and its value for the object."""


def ask(
  kind: str,
  emoji: Emoji,
  artist: str,
  background: str,
  yes: bool,
  others: Sequence[Emoji],
  side: int,
  rng: np.random.Generator,
) -> tuple[Scene, dict[str, str], str]:
  """Makes a scene around an emoji and a question about it.

  Args:
    kind: A key of WORDINGS.
    emoji: What the question is about.
    artist: Who draws all objects.
    background: Color of the canvas.
    yes: The answer, where the question is a yes/no question.
    others: Three other concepts, to fill the scene; a fourth, for what is
      absent.
    side: Side of the canvas in pixels.
    rng: Source of the scene.

  Returns:
    The scene, the words that fill the wording's braces, and the answer.
  """
  fewest = 2 if kind == 'relation' else 1
  count = int(rng.integers(fewest, len(QUADRANTS) + 1))
  copies = int(rng.integers(1, count + 1)) if kind == 'count_of' else 1
  hexes = [emoji.hex] * copies + [o.hex for o in others[: count - copies]]
  quadrants = [int(q) for q in rng.permutation(len(QUADRANTS))]
  bit = pick((1, 2), rng)
  if kind == 'relation':
    # The second object, beside or below or above the first.
    beside = quadrants[0] ^ bit
    quadrants.remove(beside)
    quadrants.insert(1, beside)
  jitter = bool(rng.integers(2))
  scene = arrange(artist, hexes, quadrants, background, side, jitter, rng)
  quadrant = QUADRANTS[quadrants[0]]
  words = {
    'name': emoji.concept if yes else others[-1].concept,
    'quadrant': quadrant,
    'relation': RELATIONS[bit, int(quadrants[0] & bit > 0)],
    'other': others[0].concept,
  }
  answers = {
    'count': str(count),
    'count_of': str(copies),
    'is_present': 'yes' if yes else 'no',
    'at': emoji.concept,
    'where': quadrant,
    'relation': emoji.concept,
  }
  return scene, words, answers[kind]
