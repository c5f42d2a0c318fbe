"""Plots as SVG."""

import math
from xml.etree import ElementTree

import pytest

from unifluid_jax.evaluation.report import plots
from unifluid_jax.evaluation.report.plots import Line, plot


def draw(*lines, log=False):
  svg = plot('a <title>', lines, 'step', 'loss & more', log)
  return ElementTree.fromstring(svg)


def curves(svg):
  return [
    [
      tuple(map(float, point.split(',')))
      for point in line.get('points').split()
    ]
    for line in svg.iter('polyline')
  ]


def texts(svg):
  return [text.text for text in svg.iter('text')]


def test_lines_fill_the_area_between_the_axes():
  (points,) = curves(draw(Line('a', [(0, 1), (50, 3), (100, 2)])))
  left, right = plots.LEFT, plots.WIDTH - plots.RIGHT
  top, bottom = plots.TOP, plots.HEIGHT - plots.BOTTOM
  middle = (left + right) / 2, (top + bottom) / 2
  assert points == [(left, bottom), (middle[0], top), (right, middle[1])]


def test_a_logarithmic_axis_spaces_decades_evenly():
  (points,) = curves(draw(Line('a', [(0, 1), (1, 10), (2, 100)]), log=True))
  heights = [y for _, y in points]
  assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])


def test_labels_and_legend_are_there():
  svg = draw(Line('image', [(0, 1), (1, 2)]), Line('text', [(0, 3), (1, 4)]))
  assert {'step', 'loss & more', 'image', 'text'} <= set(texts(svg))
  assert len(curves(svg)) == 2


@pytest.mark.parametrize(
  ('low', 'high', 'log', 'expected'),
  [
    (0, 2400, False, ['0', '500', '1,000', '1,500', '2,000']),
    (0.01, 10, True, ['0.01', '0.1', '1', '10']),
    (0.3, 3, True, ['0.5', '1', '2']),
    (0.31, 0.39, True, ['0.32', '0.34', '0.36', '0.38']),
  ],
)
def test_ticks_are_round(low, high, log, expected):
  # The horizontal axis has ticks too: keep them apart from these.
  svg = draw(Line('a', [(700, low), (900, high)]), log=log)
  assert [text for text in texts(svg) if text in expected] == expected


@pytest.mark.parametrize('log', [True, False])
def test_one_point_is_a_dot_within_the_axes(log):
  svg = draw(Line('a', [(2, 0.5)]), log=log)
  (dot,) = svg.iter('circle')
  assert plots.LEFT < float(dot.get('cx')) < plots.WIDTH
  assert 0 < float(dot.get('cy')) < plots.HEIGHT - plots.BOTTOM


def test_points_that_no_axis_has_are_left_out():
  points = [(0, 1), (1, math.nan), (2, -1), (3, math.inf), (4, 2)]
  assert len(curves(draw(Line('a', points), log=True))[0]) == 2
  assert len(curves(draw(Line('a', points)))[0]) == 3


def test_no_points_no_plot():
  assert plot('a', [Line('a', [])], 'x', 'y', True) == ''
