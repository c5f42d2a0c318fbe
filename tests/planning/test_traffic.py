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


def entry(*lines):
  """A program of one computation that starts with 16 numbers."""
  start = '%a = f32[16]{0:T(128)} parameter(0)'
  return '\n  '.join(
    ['ENTRY %main (a: f32[16]) -> f32[4] {', start, *lines, '}']
  )


def test_a_scatter_in_the_background():
  """Its result is the operand and the result, a quarter."""
  groups = 'channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add'
  text = entry(
    f'%rs = ((f32[16]), f32[4]) reduce-scatter-start(%a), {groups}',
    'ROOT %d = f32[4] reduce-scatter-done(%rs)',
  )
  now = entry(f'ROOT %rs = f32[4] reduce-scatter(%a), {groups}')
  received = [read_traffic(t, devices_per_slice=4).ici for t in (text, now)]
  assert received == [4 * 4 * 3] * 2


def test_a_dynamic_slice_in_the_background():
  """It reads two numbers of 16, from where an index says."""
  text = entry(
    '%i = s32[]{:T(128)S(6)} parameter(1)',
    '%ds = ((f32[16], s32[]{:S(6)}), f32[2]{0:S(1)}, u32[]{:S(2)}) '
    'dynamic-slice-start(%a, %i), dynamic_slice_sizes={2}',
    'ROOT %d = f32[2]{0:S(1)} dynamic-slice-done(%ds)',
  )
  assert read_traffic(text, devices_per_slice=4).hbm == 2 * 4


@pytest.mark.parametrize(
  'branches',
  [
    'branch_computations={%one, %two}',
    'true_computation=%one, false_computation=%two',
  ],
)
def test_every_branch_counts(branches):
  def branch(name):
    start = f'%{name} (p: f32[16]) -> f32[16] {{'
    copied = '  ROOT %c = f32[16] copy(%p)'
    return f'{start}\n  %p = f32[16] parameter(0)\n{copied}\n}}\n'

  text = entry(
    '%i = s32[]{:S(6)} parameter(1)',
    f'ROOT %c = f32[16] conditional(%i, %a, %a), {branches}',
  )
  text = branch('one') + branch('two') + text
  assert read_traffic(text, devices_per_slice=4).hbm == 2 * 2 * 16 * 4
