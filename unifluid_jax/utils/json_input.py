"""Parses JSON from users."""

import collections
import json
from typing import Any


def parse_json(text: bytes | str) -> Any:
  """The value of a JSON text.

  Raises:
    ValueError: It is not JSON, an object has a key twice, or the nesting is too
      deep to read.
  """
  try:
    return json.loads(text, object_pairs_hook=_unique)
  except RecursionError as error:
    raise ValueError('its brackets are nested too deeply') from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object whose keys differ."""
  result = dict(pairs)
  if len(result) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    key, times = counts.most_common(1)[0]
    raise ValueError(f'an object has the key {key!r} {times} times')
  return result
