"""Bytes that a compiled program moves, by what they move over."""

from typing import NamedTuple

from unifluid_jax.planning.collectives import received_bytes
from unifluid_jax.planning.hbm import hbm_bytes
from unifluid_jax.planning.hlo import parse


class Traffic(NamedTuple):
  """Bytes of one run of a program, on one device.

  Attributes:
    hbm: Read from and written to HBM.
    ici: Received from devices of the slice.
    dcn: Received from other slices.
  """

  hbm: float
  ici: float
  dcn: float


def read_traffic(text: str, devices_per_slice: int) -> Traffic:
  """Adds up the bytes of a compiled module.

  Args:
    text: The module, after all of the compiler's passes.
    devices_per_slice: Devices of a slice, whose ids are consecutive.
  """
  module, entry = parse(text)
  ici, dcn = received_bytes(module, entry, devices_per_slice)
  return Traffic(hbm_bytes(module, entry), ici, dcn)
