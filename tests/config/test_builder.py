"""From configs to dataclasses: what is right is kept, what is wrong named."""

import dataclasses
import json
import re
from collections.abc import Mapping

import ml_collections
import pytest

from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float
  layers: int = 2


@dataclasses.dataclass(frozen=True)
class Outer:
  name: str
  inner: Inner
  flag: bool = False
  steps: int | None = None
  widths: tuple[int, ...] = (1, 2)
  interval: tuple[float, float] = (0.0, 1.0)
  parts: Mapping[str, Inner] = dataclasses.field(default_factory=dict)


def sections(**changes):
  """A config that is right, but for the changes."""
  return {'name': 'a', 'inner': {'rate': 0.5}} | changes


def test_defaults_fill_what_is_left_out():
  assert build(Outer, sections()) == Outer('a', Inner(0.5, 2))


@pytest.mark.parametrize('wrap', [dict, ml_collections.ConfigDict])
def test_sections_nest(wrap):
  config = wrap(
    sections(
      flag=True,
      steps=3,
      widths=[4],
      interval=(0.1, 0.9),
      parts={'one': {'rate': 1.0}, 'two': {'rate': 2.0, 'layers': 5}},
    )
  )
  built = build(Outer, config)
  parts = {'one': Inner(1.0), 'two': Inner(2.0, 5)}
  assert built == Outer('a', Inner(0.5), True, 3, (4,), (0.1, 0.9), parts)
  assert isinstance(built.widths, tuple)


def test_a_whole_number_is_a_float_where_one_is_wanted():
  inner = build(Outer, sections(inner={'rate': 1})).inner
  assert isinstance(inner.rate, float)


@pytest.mark.parametrize('value', [None, 7])
def test_what_is_optional_may_be_none(value):
  assert build(Outer, sections(steps=value)).steps == value


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'nam': 'b'}, "config has no key 'nam'; did you mean 'name'?"),
    ({'zzz': 1}, "config has no key 'zzz'; known: name, inner, flag"),
    (
      {'inner': {'rate': 1.0, 'layer': 3}},
      "config.inner has no key 'layer'; did you mean 'layers'?",
    ),
    (
      {'parts': {'one': {'rate': 1.0, 'rates': 2}}},
      "config.parts.one has no key 'rates'; did you mean 'rate'?",
    ),
    ({'inner': {}}, 'config.inner lacks rate'),
    ({'inner': 3}, 'config.inner is 3; it must be a section of keys'),
    ({'name': 3}, 'config.name is 3 (int); it must be of type str'),
    ({'flag': 1}, 'config.flag is 1 (int); it must be of type bool'),
    ({'steps': 'x'}, "config.steps is 'x' (str); it must be of type int"),
    (
      {'inner': {'rate': 1.0, 'layers': 2.0}},
      'config.inner.layers is 2.0 (float); it must be of type int',
    ),
    (
      {'inner': {'rate': 1.0, 'layers': True}},
      'config.inner.layers is True (bool); it must be of type int',
    ),
    (
      {'inner': {'rate': True}},
      'config.inner.rate is True (bool); it must be of type float',
    ),
    ({'inner': {'rate': None}}, 'config.inner.rate is None (NoneType)'),
    ({'widths': 4}, 'config.widths is 4; it must be a list'),
    ({'widths': [1, 'x']}, "config.widths[1] is 'x' (str); it must be of"),
    ({'interval': [0.5]}, 'config.interval has 1 values; it must have 2'),
    ({'parts': 3}, 'config.parts is 3; it must be a section of keys'),
  ],
)
def test_what_is_wrong_is_named(changes, message):
  with pytest.raises(UserError, match=f'^{re.escape(message)}'):
    build(Outer, sections(**changes))


def test_two_missing_keys_are_both_named():
  with pytest.raises(UserError, match='^config lacks name, inner$'):
    build(Outer, {})


def test_a_config_goes_through_json_and_back():
  outer = Outer(
    'a', Inner(0.5), True, None, (3,), (0.2, 0.8), {'one': Inner(1.0, 3)}
  )
  assert build(Outer, json.loads(json.dumps(to_dict(outer)))) == outer
