"""What a chip can do: the one table of peaks, for MFU and for plans.

Sources: docs.cloud.google.com/tpu/docs pages v4, v5e, v5p, v6e and tpu7x, as of
2026: peak bf16 FLOP/s, HBM bandwidth, bidirectional ICI bandwidth (half of it
is what a chip receives), data-center network. Not in these pages but from
memory: v4's interconnects. `hbm_gib` is what the compiler of libtpu 0.0.42 says
is available to programs, a little less than a chip has.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax


class Chip(NamedTuple):
  """One chip; rates are per second.

  Attributes:
    kinds: What JAX calls it (`device_kind`).
    axes: Dimensions of a slice.
    flops: Peak bf16 FLOP/s.
    hbm_gib: HBM that programs may use, GiB.
    hbm: HBM bandwidth, bytes/s.
    ici: Bytes/s that it receives from its slice, all links together.
    dcn: Bytes/s that it receives from other slices.
  """

  kinds: tuple[str, ...]
  axes: int
  flops: float
  hbm_gib: float
  hbm: float
  ici: float
  dcn: float


CHIPS = {
  'v4': Chip(('TPU v4',), 3, 275e12, 30.75, 1.2e12, 300e9, 6.25e9),
  'v5e': Chip(
    ('TPU v5 lite', 'TPU v5e'), 2, 197e12, 15.75, 819e9, 200e9, 3.125e9
  ),
  'v5p': Chip(('TPU v5', 'TPU v5p'), 3, 459e12, 95.74, 2765e9, 600e9, 6.25e9),
  'v6e': Chip(
    ('TPU v6 lite', 'TPU v6e'), 2, 918e12, 31.25, 1638e9, 400e9, 12.5e9
  ),
  'tpu7x': Chip(('TPU7x',), 3, 2307e12, 189.5, 7380e9, 600e9, 12.5e9),
}
"""By the name that a topology starts with."""


def chip_of(kind: str) -> Chip | None:
  """The chip that JAX calls `kind`, or None if it is not in the table."""
  return next((chip for chip in CHIPS.values() if kind in chip.kinds), None)


def count_chips(devices: Iterable[jax.Device]) -> int:
  """Chips that TPU devices are on; some chips are two devices."""
  places = {(getattr(d, 'slice_index', 0), tuple(d.coords)) for d in devices}
  return len(places)
