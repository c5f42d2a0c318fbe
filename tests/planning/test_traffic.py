"""Bytes of a compiled module, counted by hand."""

import pathlib

import pytest

from unifluid_jax.planning.traffic import read_traffic

# A loop of five rounds that gathers a quarter of a matrix, in the background of
# two fusions; then a reduce-scatter, an all-reduce across slices, copies to a
# chip's inner memory of 16 numbers and of two of them, a fusion in a fusion
# that reads one row of six, and the update of one row of ten.
FOLDER = pathlib.Path(__file__).parent
MODULE = (FOLDER / 'step.hlo').read_text()


def test_interconnect():
  """A channel counts once a round, a scatter half of an all-reduce."""
  traffic = read_traffic(MODULE, devices_per_slice=4)
  gather, scatter = 5 * 8 * 4 * 4 * 3 / 4, 16 * 4 * 3 / 4
  assert traffic.ici == pytest.approx(gather + scatter)
  assert traffic.dcn == pytest.approx(2 * 4 * 4 / 2)


def test_one_slice_has_no_network():
  one, two = (read_traffic(MODULE, devices) for devices in (8, 4))
  assert one.dcn == 0
  assert one.ici == two.ici + two.dcn


def test_hbm():
  """What a collective inside a fusion reads counts as interconnect alone."""
  scatter = 4 * 4
  reduced = 4 * 4  # the result is in another memory
  copied = 16 * 4
  started = 2 * 4
  layer = 16 * 4
  update = 2 * 32 * 4  # one row in, one row out
  traffic = read_traffic(MODULE, devices_per_slice=8)
  assert traffic.hbm == scatter + reduced + copied + started + layer + update


@pytest.mark.parametrize(
  ('target', 'kind', 'received'),
  [
    ('{1,2,3,4}x', 'ALL_REDUCE', 2 * 32 * 4 * 3 / 4),
    ('{1:2}x', 'ALL_REDUCE', 2 * 32 * 4 / 2),
    ('{1,2,3,4}x', 'ALL_GATHER', 32 * 4 * 3 / 4),
    ('{1,2,3,4}x', 'ONE_TO_ONE', 32 * 4),
  ],
)
def test_hosts_move_what_goes_between_slices(target, kind, received):
  """It is a `send` and a `recv` of the device, not a collective."""
  text = (FOLDER / 'slices.hlo').read_text()
  text = text.replace('{1,2,3,4}x', target).replace('ALL_REDUCE', kind)
  traffic = read_traffic(text, devices_per_slice=16)
  assert traffic.dcn == pytest.approx(received)
  assert traffic.ici == 0
  assert traffic.hbm == 2 * 32 * 4 + 4  # a handle comes with what is received
