"""JSON of unknown origin."""

import json
from typing import Any


def parse_json(text: bytes | str) -> Any:
  """The value of a JSON text.

  Raises:
    ValueError: It is no JSON, or nested too deeply to be read.
  """
  try:
    return json.loads(text)
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error
