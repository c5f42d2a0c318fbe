"""Copies between every order of axes, beside numpy's assignment."""

import itertools

import numpy as np
import pytest

from unifluid_jax.weights import copying
from unifluid_jax.weights.readers.dtypes import BFLOAT16

SHAPE = (3, 1, 4, 8)
ORDERS = list(itertools.permutations(range(4)))
DTYPES = [np.bool_, np.uint8, BFLOAT16, np.float32, np.float64, np.int64]


def _noise(dtype, shape=SHAPE) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.normal(size=shape).astype(dtype)


@pytest.fixture(params=[1 << 23, 64], ids=['whole', 'in parts'])
def _parts(request, monkeypatch):
  monkeypatch.setattr(copying, '_PART_BYTES', request.param)


@pytest.fixture(params=['xla', 'numpy'])
def _transposer(request, monkeypatch):
  if request.param == 'numpy':
    monkeypatch.setattr(copying, '_host', lambda: None)


@pytest.mark.usefixtures('_parts', '_transposer')
@pytest.mark.parametrize('dtype', DTYPES)
def test_every_order_of_both(dtype):
  source = _noise(dtype)
  for read, written in itertools.product(ORDERS, ORDERS[::5]):
    shape = tuple(source.shape[axis] for axis in read)
    out = np.zeros([shape[a] for a in np.argsort(written)], dtype)
    out = out.transpose(written)
    copying.copy(out, source.transpose(read))
    np.testing.assert_array_equal(out, source.transpose(read))


@pytest.mark.usefixtures('_parts')
@pytest.mark.parametrize('to', [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize('dtype', [np.float32, np.float16, BFLOAT16])
def test_dtypes(dtype, to):
  source = _noise(dtype).T
  out = np.zeros(source.shape, to)
  copying.copy(out, source)
  np.testing.assert_array_equal(out, source.astype(to))


@pytest.mark.usefixtures('_parts')
def test_only_the_part_is_written():
  source = _noise(BFLOAT16, (8, 6))
  out = np.zeros((6, 3, 16), BFLOAT16)
  copying.copy(out[:, 1, 4:12], source.T)
  np.testing.assert_array_equal(out[:, 1, 4:12], source.T)
  assert np.count_nonzero(out) == np.count_nonzero(source)


def test_bits_are_kept():
  """Also of numbers that are none, which arithmetic would change."""
  source = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16).reshape(64, -1)
  out = np.zeros(source.T.shape, BFLOAT16)
  copying.copy(out, source.T)
  np.testing.assert_array_equal(out.view(np.uint16), source.T.view(np.uint16))


def test_a_single_number():
  out = np.zeros((), np.float32)
  copying.copy(out, np.asarray(3, BFLOAT16))
  assert out == 3
