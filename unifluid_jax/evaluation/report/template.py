"""The frame of a report: one HTML page that needs nothing else."""

import html
import importlib.resources
import string
from collections.abc import Iterable

from unifluid_jax.evaluation.report.curves import Log, training_seconds
from unifluid_jax.utils.progress import clock

TEMPLATE = 'page.html'


def fill(title: str, summary: str, sections: Iterable[str]) -> str:
  """The page.

  Args:
    title: A plain text.
    summary: HTML below the title.
    sections: HTML.
  """
  template = importlib.resources.files(__package__) / TEMPLATE
  page = string.Template(template.read_text(encoding='utf-8'))
  return page.substitute(
    title=html.escape(title), summary=summary, sections='\n'.join(sections)
  )


def millions(count: int) -> str:
  """A number of parameters."""
  return f'{count / 1e6:.3g} million'


def length(log: Log) -> str:
  """How long a training was, as far as there is a log of it."""
  if not log:
    return ''
  steps, seconds = log[-1]['step'], training_seconds(log)
  return f' for {steps:,} steps in {clock(seconds)} min'
