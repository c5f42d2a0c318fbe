"""The report's settings: all that is needed to repeat the run."""

import html
import json
from collections.abc import Mapping
from typing import Any

from unifluid_jax.config import to_dict
from unifluid_jax.evaluation.report.markup import section, table
from unifluid_jax.experiment import Experiment


def settings_section(
  experiment: Experiment, manifest: Mapping[str, Any]
) -> str:
  """The manifest as a table, and the whole config folded away."""
  config = html.escape(json.dumps(to_dict(experiment), indent=2))
  rows = [
    (html.escape(name), html.escape(_text(value)))
    for name, value in manifest.items()
  ]
  return section(
    'Settings',
    table(('setting', 'value'), rows),
    '<details><summary>The whole config</summary>'
    f'<pre>{config}</pre></details>',
  )


def _text(value: Any) -> str:
  """A value on one line; entries of an object without braces and quotes."""
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {_text(entry)}' for key, entry in value.items())
  return str(value)
