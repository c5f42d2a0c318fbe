"""A measured value, with how many cases it was measured on."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Measure:
  """One figure of an evaluation.

  Attributes:
    value: A fraction, unless the name has a unit.
    count: Cases that it was measured on.
    chance: What guessing uniformly would reach on average, where that means
      something.
  """

  value: float
  count: int
  chance: float | None = None


Measures = dict[str, Measure]
"""Measures by name; 'a/b' is the entry b of the group a."""


def share(rights: Sequence[bool], chance: float | None = None) -> Measure:
  """The share of the cases that are right."""
  return Measure(sum(rights) / len(rights), len(rights), chance)


def shares(
  name: str,
  kinds: Sequence[str],
  rights: Sequence[bool],
  chances: Mapping[str, float] | None = None,
) -> Measures:
  """The share of the cases that are right, for each kind of case.

  Args:
    name: Name of the group of measures.
    kinds: Kind of each case.
    rights: Whether each case is right.
    chances: Chance of each kind, where it means something.
  """
  groups = collections.defaultdict(list)
  for kind, right in zip(kinds, rights, strict=True):
    groups[kind].append(right)
  return {
    f'{name}/{kind}': share(group, (chances or {}).get(kind))
    for kind, group in groups.items()
  }
