"""Shows random cases, and some failures."""

from collections.abc import Callable, Sequence

import numpy as np

from unifluid_jax.evaluation.report.markup import cards, heading
from unifluid_jax.evaluation.subsampling import some


def gallery(
  title: str,
  rights: Sequence[bool],
  show: Callable[[int], str],
  rng: np.random.Generator,
  count: int,
  failures: int = 8,
) -> str:
  """Shows random cases.

  Args:
    title: What the cases are.
    rights: Whether each case is right.
    show: Makes the card of a case of this index.
    rng: Source of the draw.
    count: Most cases drawn from all.
    failures: Most cases drawn from the others that are wrong.
  """
  random = some(range(len(rights)), count, rng)
  wrong = [i for i, r in enumerate(rights) if not r and i not in random]
  wrong = some(wrong, failures, rng)
  parts = [
    heading(f'{title}: {len(random)} of {len(rights):,}, drawn at random'),
    cards(map(show, random)),
  ]
  if wrong:
    parts += [
      heading(f'{title}: {len(wrong)} more of those that went wrong'),
      cards(map(show, wrong)),
    ]
  return ''.join(parts)
