"""Line plots as inline SVG, in the page's own colors."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 30, 44
"""Room around the axes for ticks and labels."""


class Line(NamedTuple):
  """A curve: its name for the legend, and its points."""

  name: str
  points: Sequence[tuple[float, float]]

  def drawable(self, log: bool) -> 'Line':
    """The curve without points that an axis does not have."""
    return self._replace(
      points=[
        (x, y)
        for x, y in self.points
        if math.isfinite(y) and (y > 0 or not log)
      ]
    )


class _Axis(NamedTuple):
  """A range of values, and the pixels that it is drawn on."""

  low: float
  high: float
  start: float
  stop: float
  log: bool = False

  def at(self, value: float) -> float:
    """The pixel of a value."""
    low, high, value = map(self._scaled, (self.low, self.high, value))
    return self.start + (value - low) / (high - low) * (self.stop - self.start)

  def ticks(self) -> list[float]:
    """A few round values within the range."""
    ticks = _log_ticks(self.low, self.high) if self.log else []
    if len(ticks) < 3:
      step = _round_step((self.high - self.low) / 5)
      first, last = math.ceil(self.low / step), math.floor(self.high / step)
      ticks = [i * step for i in range(first, last + 1)]
    return ticks

  def _scaled(self, value: float) -> float:
    return math.log10(value) if self.log else value


def plot(
  title: str, lines: Sequence[Line], x_label: str, y_label: str, log: bool
) -> str:
  """Draws lines over a common range.

  Args:
    title: Description for screen readers.
    lines: The curves; points that are not finite, or not positive on a
      logarithmic axis, are left out.
    x_label: What the horizontal axis is.
    y_label: What the vertical axis is.
    log: Whether the vertical axis is logarithmic.

  Returns:
    An `svg` element; nothing if there is no point.
  """
  lines = [line.drawable(log) for line in lines]
  points = [point for line in lines for point in line.points]
  if not points:
    return ''
  xs, ys = zip(*points, strict=True)
  x_axis = _Axis(*_span(xs), LEFT, WIDTH - RIGHT)
  y_axis = _Axis(*_span(ys, log), HEIGHT - BOTTOM, TOP, log)
  middle = (TOP + HEIGHT - BOTTOM) / 2
  parts = [
    *(_x_tick(x_axis, value) for value in x_axis.ticks()),
    *(_y_tick(y_axis, value) for value in y_axis.ticks()),
    *(_curve(i, line, x_axis, y_axis) for i, line in enumerate(lines)),
    *(_legend(i, line.name) for i, line in enumerate(lines)),
    _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label),
    f'<g transform="translate(12 {middle}) rotate(-90)">'
    f'{_text(0, 0, y_label)}</g>',
  ]
  return (
    f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
  )


def _span(values: Sequence[float], log: bool = False) -> tuple[float, float]:
  """Returns the range of the values, widened if there is only one."""
  low, high = min(values), max(values)
  if low < high:
    return low, high
  return (low / 2, low * 2) if log else (low - 1, low + 1)


def _round_step(least: float) -> float:
  """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
  power = 10.0 ** math.floor(math.log10(least))
  return next(f * power for f in (1, 2, 5, 10) if f * power >= least)


def _log_ticks(low: float, high: float) -> list[float]:
  """Powers of ten, and 2 and 5 times them if those are too few."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  for factors in ((1,), (1, 2, 5)):
    ticks = [f * 10.0**power for power in powers for f in factors]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 3:
      break
  return ticks


def _curve(index: int, line: Line, x_axis: _Axis, y_axis: _Axis) -> str:
  """Draws a polyline, or a dot for a single point."""
  points = [(x_axis.at(x), y_axis.at(y)) for x, y in line.points]
  if len(points) == 1:
    ((x, y),) = points
    return f'<circle class="line{index}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
  path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
  return f'<polyline class="line{index}" points="{path}"/>'


def _legend(index: int, name: str) -> str:
  left = LEFT + 130 * index
  return (
    f'<line class="line{index}" x1="{left}" x2="{left + 18}" y1="12" y2="12"/>'
    f'{_text(left + 24, 16, name, "start")}'
  )


def _x_tick(axis: _Axis, value: float) -> str:
  x = axis.at(value)
  return _grid_line(x, x, TOP, HEIGHT - BOTTOM) + _text(
    x, HEIGHT - BOTTOM + 16, f'{value:,.6g}'
  )


def _y_tick(axis: _Axis, value: float) -> str:
  y = axis.at(value)
  return _grid_line(LEFT, WIDTH - RIGHT, y, y) + _text(
    LEFT - 6, y + 4, f'{value:,.6g}', 'end'
  )


def _grid_line(x1: float, x2: float, y1: float, y2: float) -> str:
  return (
    f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" '
    f'y2="{y2:.1f}"/>'
  )


def _text(x: float, y: float, text: str, anchor: str = 'middle') -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f'{html.escape(text)}</text>'
  )
