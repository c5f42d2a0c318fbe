"""Shares, by kind and of all."""

from unifluid_jax.evaluation.measure import Measure, share, shares


def test_share_counts_the_right_ones():
  assert share([True, False, False, True, True], 0.1) == Measure(0.6, 5, 0.1)


def test_shares_are_by_kind():
  kinds, rights = ['a', 'b', 'a', 'a'], [True, False, False, True]
  assert shares('group', kinds, rights, {'b': 0.5}) == {
    'group/a': Measure(2 / 3, 3),
    'group/b': Measure(0, 1, 0.5),
  }
