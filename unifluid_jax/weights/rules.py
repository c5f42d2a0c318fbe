"""Tables of names and axes that map foreign tensors to ours.

A rule such as

    Rule('attention/key_value', 'k_proj.weight', '(K h) D -> D 0 K h')

says that the foreign `k_proj.weight`, whose first axis is K heads of size h,
is slice 0 along the second axis of our `attention/key_value` [D 2 K h].
Parentheses are axes that the foreign tensor has merged; a number is a fixed
index. A rule never computes anything but a transposition, so it is read in
both directions.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]
Index = tuple[int | slice, ...]

LAYER = '{layer}'


@dataclasses.dataclass(frozen=True)
class Rule:
  """One correspondence.

  Attributes:
    ours: Name of our parameter, which may be filled by several rules.
    theirs: Name of the foreign tensor. With '{layer}' in it there is one for
      each layer, and ours has a leading axis of layers.
    axes: 'foreign axes -> our axes'.
  """

  ours: str
  theirs: str
  axes: str


def expand(rules: Sequence[Rule], layers: int) -> list['Piece']:
  """The rules with every layer's tensor by its name."""
  return [
    Piece(rule.ours, rule.theirs.replace(LAYER, str(layer)), rule.axes, layer)
    if LAYER in rule.theirs
    else Piece(rule.ours, rule.theirs, rule.axes)
    for rule in rules
    for layer in (range(layers) if LAYER in rule.theirs else (0,))
  ]


@dataclasses.dataclass(frozen=True)
class Piece:
  """A foreign tensor that fills a part of one of our parameters.

  Attributes:
    ours: Name of our parameter.
    theirs: Name of the foreign tensor.
    axes: As in `Rule`.
    layer: Index into our leading axis of layers, None where ours has none.
  """

  ours: str
  theirs: str
  axes: str
  layer: int | None = None

  def shape(self, ours: Shape) -> tuple[int | None, ...]:
    """Shape of the foreign tensor; None for axes that we use in part.

    Args:
      ours: Shape of our parameter.
    """
    sizes = self._sizes(ours)
    return tuple(
      None if group[0].isdigit() else math.prod(sizes[axis] for axis in group)
      for group in self._theirs
    )

  @property
  def where(self) -> Index:
    """What it fills of our parameter."""
    index: list[int | slice] = [
      int(axis) if axis.isdigit() else slice(None) for axis in self._ours
    ]
    return tuple(index if self.layer is None else [self.layer, *index])

  def view(self, theirs: np.ndarray, ours: Shape) -> np.ndarray:
    """Views the foreign tensor with the axes of ours[where].

    It is never a copy, so that it may also be written to.
    """
    index = tuple(
      int(group[0]) if group[0].isdigit() else slice(None)
      for group in self._theirs
    )
    sizes, axes = self._sizes(ours), self._their_axes
    split = theirs[index].reshape([sizes[axis] for axis in axes])
    return split.transpose([axes.index(axis) for axis in self._our_axes])

  def _sizes(self, ours: Shape) -> dict[str, int]:
    own = ours if self.layer is None else ours[1:]
    return dict(zip(self._ours, own, strict=True))

  @property
  def _theirs(self) -> list[tuple[str, ...]]:
    groups = re.findall(r'\([^)]*\)|\S+', self.axes.split('->')[0])
    return [tuple(group.strip('()').split()) for group in groups]

  @property
  def _ours(self) -> list[str]:
    return self.axes.split('->')[1].split()

  @property
  def _their_axes(self) -> list[str]:
    return [a for group in self._theirs for a in group if not a.isdigit()]

  @property
  def _our_axes(self) -> list[str]:
    return [axis for axis in self._ours if not axis.isdigit()]
