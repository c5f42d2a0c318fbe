"""What flags say of a process."""

import pytest

from unifluid_jax.errors import UserError
from unifluid_jax.processes import Place, make_place


def test_the_port_is_pinned():
  assert make_place('host', 2, 0) == Place('host:8476', 2, 0)
  assert make_place('10.0.0.1:99', 4, 3) == Place('10.0.0.1:99', 4, 3)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('a', 2, 2), '--process_id is 2 and --processes is 2; ids are 0 to 1'),
    (('a', 2, -1), '--process_id is -1'),
    (('a:b', 2, 1), "--coordinator is 'a:b'; it must be HOST or HOST:PORT"),
    ((':8476', 2, 1), "--coordinator is ':8476'"),
    (('a:65536', 2, 1), "--coordinator is 'a:65536'"),
  ],
)
def test_flags_that_make_no_process(flags, message):
  with pytest.raises(UserError, match=message):
    make_place(*flags)
