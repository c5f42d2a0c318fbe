"""The report's settings: everything to repeat the run."""

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from unifluid_jax.config.builder import to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.evaluation.report.markup import section, table


def settings_section(
  experiment: Experiment, manifest: Mapping[str, Any]
) -> str:
  """The manifest as a table, and the whole config folded away."""
  config = html.escape(json.dumps(to_dict(experiment), indent=2))
  rows = [
    (html.escape(name), html.escape(text)) for name, text in _rows(manifest)
  ]
  return section(
    'Settings',
    table(('setting', 'value'), rows),
    '<details><summary>The whole config</summary>'
    f'<pre>{config}</pre></details>',
  )


def _rows(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Names and values; an object of objects takes a row for each of these."""
  for name, value in settings.items():
    parts = value if isinstance(value, Mapping) else {}
    if parts and all(isinstance(part, Mapping) for part in parts.values()):
      yield from ((f'{name}: {key}', text) for key, text in _rows(parts))
    else:
      yield name, _text(value)


def _text(value: Any) -> str:
  """A value on one line, without JSON's quotes and braces."""
  if isinstance(value, Mapping):
    entries = []
    for key, entry in value.items():
      text = _text(entry)
      nested = isinstance(entry, Mapping)
      entries.append(f'{key} ({text})' if nested else f'{key} {text}')
    return ', '.join(entries) or 'none'
  return 'none' if value is None else str(value)
