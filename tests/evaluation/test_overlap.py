"""The overlap of texts."""

import pytest

from unifluid_jax.evaluation.overlap import best_overlap


@pytest.mark.parametrize(
  ('text', 'references', 'overlap'),
  [
    ('a red fox', ['a red fox'], 1),
    ('A red, fox!', ['a "Red" fox.'], 1),
    ('a red fox', ['a blue fox'], 2 * 2 / 6),
    ('fox fox fox', ['fox'], 2 * 1 / 4),
    ('a fox', ['nothing', 'the fox', 'a fox cub'], 2 * 2 / 5),
    ('', ['fox'], 0),
    ('fox', [''], 0),
    ('...', [''], 1),
    ("don't", ["don't"], 1),
    ('शेर', ['शेर'], 1),
  ],
)
def test_the_share_of_common_words(text, references, overlap):
  assert best_overlap(text, references) == pytest.approx(overlap)
