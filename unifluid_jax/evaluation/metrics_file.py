"""All measures of a run as one JSON object."""

import math
from collections.abc import Mapping
from typing import Any

from unifluid_jax.evaluation.measure import Measures
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.json_input import parse_json
from unifluid_jax.utils.paths import AnyPath

TIMING_FILE = 'timing.json'
"""What a launcher may leave in a run's folder: an object with these keys."""

TIMING = ('seconds_train', 'seconds_total', 'peak_rss_gib')


def read_timing(workdir: AnyPath) -> dict[str, float | None]:
  """What a launcher measured; None for what it did not.

  Raises:
    UserError: The file is not a JSON object of numbers.
  """
  path = workdir / TIMING_FILE
  timing = {}
  if path.exists():
    try:
      timing = parse_json(path.read_text(encoding='utf-8'))
    except ValueError as error:
      raise UserError(f'{path} is not JSON ({error}); remove it') from error
    if not isinstance(timing, dict):
      raise UserError(f'{path} holds {timing!r}, not an object; remove it')
  for key in TIMING:
    value = timing.get(key)
    number = isinstance(value, int | float) and math.isfinite(value)
    if value is not None and not number:
      raise UserError(f'{path} has {key} = {value!r}, not a number; remove it')
  return {key: timing.get(key) for key in TIMING}


def to_metrics(
  measures: Measures,
  sizes: Mapping[str, Any],
  timing: Mapping[str, float | None],
  manifest: Mapping[str, Any],
) -> dict[str, Any]:
  """The content of `metrics.json`.

  Args:
    measures: The measures; 'a/b' becomes the entry b of an object a.
    sizes: How much was trained, such as the number of concepts.
    timing: See `read_timing`.
    manifest: How all this came about.
  """
  chances = {k: m.chance for k, m in measures.items() if m.chance is not None}
  return {
    **_nested({name: m.value for name, m in measures.items()}),
    **sizes,
    'counts': _nested({name: m.count for name, m in measures.items()}),
    'chance': _nested(chances),
    **timing,
    'manifest': dict(manifest),
  }


def _nested(flat: Mapping[str, float]) -> dict[str, Any]:
  nested: dict[str, Any] = {}
  for name, value in flat.items():
    group, _, entry = name.rpartition('/')
    (nested.setdefault(group, {}) if group else nested)[entry] = value
  return nested
