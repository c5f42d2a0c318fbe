"""Rows that are worked on some at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from tests import tiny_vae
from unifluid_jax.models import latents
from unifluid_jax.sharding.microbatches import map_rows, split_rows


@pytest.mark.parametrize(
  ('rows', 'most', 'devices', 'at_once'),
  [
    (8, 8, 1, [8]),
    (8, 3, 1, [2]),
    (8, 1, 1, [1]),
    # A prime: no even split but single rows.
    (7, 4, 1, [1]),
    (16, 2, 4, [8]),
    (8, 1, 8, [8]),
    # Rows that do not divide lie whole on every device.
    (6, 3, 4, [3]),
    (0, 4, 1, [0]),
  ],
)
def test_a_device_has_no_more_rows_at_once(rows, most, devices, at_once):
  seen = []

  def double(part):
    seen.append(len(part))
    return 2 * part, part.sum(-1)

  mesh = AbstractMesh(
    (1, devices, 1), ('data', 'fsdp', 'tensor'), (AxisType.Auto,) * 3
  )
  x = jnp.arange(rows * 3.0).reshape(rows, 3)
  with jax.sharding.use_abstract_mesh(mesh):
    shapes = jax.eval_shape(lambda x: map_rows(double, x, most), x)
  assert [s.shape for s in shapes] == [(rows, 3), (rows,)]
  assert seen == at_once


def test_rows_come_back_in_their_order():
  x = jnp.arange(24.0).reshape(12, 2)
  doubled, sums = map_rows(lambda part: (2 * part, part.sum(-1)), x, 5)
  np.testing.assert_array_equal(doubled, 2 * x)
  np.testing.assert_array_equal(sums, x.sum(-1))


def test_a_part_is_a_share_of_what_each_device_has():
  parts = split_rows(jnp.arange(12), 3)
  np.testing.assert_array_equal(parts, jnp.arange(12).reshape(4, 3).T)


def test_images_encoded_some_at_a_time_are_those_of_all_at_once(monkeypatch):
  vae, side = tiny_vae.make_vae(), 16
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (2, 3, side, side, 3), np.uint8))
  key = jax.random.key(0)
  whole = latents.encode_tokens(vae, images, 1, key)
  drawn = latents.decode_tokens(vae, whole.reshape(6, 16, -1), 1, side)
  monkeypatch.setattr(latents, 'PIXELS', 2 * side**2)
  tokens = latents.encode_tokens(vae, images, 1, key)
  np.testing.assert_allclose(tokens, whole, rtol=1e-5, atol=1e-5)
  again = latents.decode_tokens(vae, whole.reshape(6, 16, -1), 1, side)
  np.testing.assert_allclose(again, drawn, rtol=1e-5, atol=1e-5)


def test_images_that_a_config_has_none_of_are_split():
  assert split_rows(jnp.zeros((8, 0, 3)), 2).shape == (2, 4, 0, 3)
