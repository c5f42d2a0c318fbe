"""Seeded draws."""

from unifluid_jax.evaluation.subsampling import rng_of, some


def test_a_draw_keeps_the_order_and_repeats_nothing():
  drawn = some(range(100), 30, rng_of(0, 'a'))
  assert len(drawn) == 30
  assert drawn == sorted(set(drawn))
  assert some('abc', 30, rng_of(0, 'a')) == ['a', 'b', 'c']


def test_draws_depend_on_seed_and_purpose_alone():
  draws = [
    tuple(some(range(100), 5, rng_of(seed, purpose)))
    for seed in (0, 1)
    for purpose in ('a', 'b')
  ]
  assert len(set(draws)) == 4
  assert tuple(some(range(100), 5, rng_of(1, 'b'))) == draws[-1]
