"""What fixes the meaning of a checkpoint's arrays, as JSON."""

from collections.abc import Mapping
from typing import Any

Identity = Mapping[str, Any]
"""The parts of the config that do: model, VAE, tokenizer, seed."""


def differences(found: Any, wanted: Any, path: str = '') -> list[str]:
  """Lists the differences of two identities."""
  if isinstance(found, Mapping) and isinstance(wanted, Mapping):
    keys = sorted({*found, *wanted})
    pairs = [(k, found.get(k), wanted.get(k)) for k in keys]
    return [
      line
      for key, a, b in pairs
      for line in differences(a, b, f'{path}.{key}' if path else key)
    ]
  same = found == wanted
  return [] if same else [f'{path} is {found!r} there and {wanted!r} here']
