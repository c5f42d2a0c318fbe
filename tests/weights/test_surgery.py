"""Tables that get other rows."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.weights import hub, official
from unifluid_jax.models.sizes import GEMMA_SIZES
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import surgery
from unifluid_jax.weights.assembly import Constant, read
from unifluid_jax.weights.pretrained import open_pretrained


def resize(source, rows, new_rows, **options):
  found = source.configs['gemma']
  wanted = {'gemma': dataclasses.replace(found, vocab_size=rows)}
  return surgery.fit(
    source.arrays,
    source.configs,
    wanted,
    new_rows=new_rows,
    resize_positions=False,
    path='file',
    **options,
  )


@pytest.fixture(scope='module')
def gemma(tmp_path_factory):
  folder = tmp_path_factory.mktemp('gemma')
  return open_pretrained(str(hub.save(hub.gemma('gemma 2 GQA'), folder)))


def test_new_rows_are_the_mean(gemma):
  old = read(gemma.arrays['gemma/embedding'])
  arrays = resize(gemma, 70, 'mean')
  new = read(arrays['gemma/embedding'])
  np.testing.assert_array_equal(new[:61], old)
  mean = old.astype(np.float64).mean(0)
  np.testing.assert_allclose(new[61:], np.tile(mean, (9, 1)), rtol=1e-5)
  untouched = {n: a for n, a in arrays.items() if n != 'gemma/embedding'}
  assert untouched == {n: gemma.arrays[n] for n in untouched}


def test_new_rows_are_normal(gemma):
  old = read(gemma.arrays['gemma/embedding'])
  table = resize(gemma, 5061, 'normal')['gemma/embedding']
  new = read(table)
  np.testing.assert_array_equal(new[:61], old)
  assert abs(new[61:].std() - 0.02) < 2e-4
  assert abs(new[61:].mean()) < 1e-3
  assert len(np.unique(new[61:], axis=0)) == 5000
  # The same values however it is cut into parts.
  part = read(table, (slice(50, 100), slice(3, 9)))
  np.testing.assert_array_equal(part, new[50:100, 3:9])


def table_of(*rows):
  """A table of 300 rows and more, of which some hold a value."""
  table = np.zeros((310, 2), np.float32)
  table[[*rows]] = 1e-30
  return {'gemma/embedding': Constant(table)}


def cut(table, **options):
  config = dataclasses.replace(GEMMA_SIZES['gemma2_2b'], width=2)
  return surgery.fit(
    table,
    {'gemma': config},
    {'gemma': dataclasses.replace(config, vocab_size=300)},
    new_rows='',
    resize_positions=False,
    path='file',
    **options,
  )


def test_rows_of_zeros_are_padding():
  old = table_of(0, 299)
  new = read(cut(old)['gemma/embedding'])
  np.testing.assert_array_equal(new, old['gemma/embedding'].value[:300])


@pytest.mark.parametrize('row', [300, 309])
def test_rows_that_may_be_trained_are_not_cut_off(row):
  told = (
    'gemma/embedding of file has 310 rows and the vocabulary only 300; .* 10 '
    '.* set model.gemma.vocab_size=310 to keep them'
  )
  with pytest.raises(UserError, match=told):
    cut(table_of(row))
  with pytest.raises(UserError, match='set --vocab_size=310 to keep them'):
    cut(table_of(row), key='--vocab_size')
  # A layout is known for its padding only where it is all of it.
  with pytest.raises(UserError, match=told):
    cut(table_of(row), padding=9)
  assert cut(table_of(row), padding=10)['gemma/embedding'].shape == (300, 2)


@pytest.mark.parametrize('more', [127, 128])
def test_the_padding_of_official_tables(gemma, tmp_path, more):
  """128 rows in the Flax layout, and in no other."""
  hf = hub.gemma('gemma 2 GQA', vocab_size=61 + more)
  weights = {name: value.numpy() for name, value in hf.state_dict().items()}
  values = official.gemma_values(
    weights, gemma.configs['gemma'], turned=False, mha=False
  )
  file = tmp_path / 'gemma.npz'
  np.savez(file, **{n.replace('&', '/'): v for n, v in values.items()})
  source = open_pretrained(str(file), configs=gemma.configs)
  if more == 128:
    table = resize(source, 61, '', padding=source.padding)['gemma/embedding']
    expected = weights['model.embed_tokens.weight'][:61]
    np.testing.assert_array_equal(read(table), expected)
  else:
    with pytest.raises(UserError, match='set model.gemma.vocab_size=188'):
      resize(source, 61, '', padding=source.padding)
  assert gemma.padding == 0


def test_what_is_too_long_for_padding_is_not_cut_off():
  table = {'gemma/embedding': Constant(np.zeros((429, 2), np.float32))}
  with pytest.raises(UserError, match='set model.gemma.vocab_size=429'):
    cut(table)


def test_rows_are_not_added_unasked(gemma):
  with pytest.raises(UserError, match='has 61 rows and the vocabulary 62'):
    resize(gemma, 62, '')


@pytest.mark.parametrize('after', [1, 2, 3, 5, 8])
def test_positions_are_resized(after, tmp_path):
  hub.save(hub.siglip('three heads'), tmp_path)
  source = open_pretrained(str(tmp_path))
  found = source.configs['encoder']
  wanted = dataclasses.replace(found, image_size=after * 7)

  def fit(allowed):
    arrays = surgery.fit(
      source.arrays,
      source.configs,
      {'encoder': wanted},
      new_rows='',
      resize_positions=allowed,
      path='file',
    )
    return read(arrays['encoder/position_embedding'])

  old = read(source.arrays['encoder/position_embedding'])
  if after == 3:
    np.testing.assert_array_equal(fit(False), old)
    return
  with pytest.raises(UserError, match='set resize_positions'):
    fit(False)
  grid = fit(True).reshape(after, after, -1)
  expected = torch.nn.functional.interpolate(
    torch.tensor(old.reshape(1, 3, 3, -1).transpose(0, 3, 1, 2)),
    (after, after),
    mode='bilinear',
    antialias=True,
  )
  expected = expected[0].permute(1, 2, 0).numpy()
  np.testing.assert_allclose(grid, expected, rtol=1e-5, atol=1e-5)
  # Rows stay rows: flipping the old grid flips the new one.
  flipped = dict(source.arrays)
  flipped['encoder/position_embedding'] = Constant(
    np.ascontiguousarray(old.reshape(3, 3, -1)[::-1].reshape(9, -1))
  )
  arrays = surgery.fit(
    flipped,
    source.configs,
    {'encoder': wanted},
    new_rows='',
    resize_positions=True,
    path='file',
  )
  other = read(arrays['encoder/position_embedding']).reshape(grid.shape)
  np.testing.assert_allclose(other[::-1], grid, rtol=1e-5, atol=1e-6)
