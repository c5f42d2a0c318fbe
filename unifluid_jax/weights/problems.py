"""Formats lists of problems."""

from collections.abc import Sequence

_MOST_LISTED = 8


def describe_misfits(path: str, problems: Sequence[str]) -> str:
  """A message with the first problems of a file and the count of the rest."""
  more = len(problems) - _MOST_LISTED
  rest = f'; and {more} more' if more > 0 else ''
  return f'{path} does not fit: {"; ".join(problems[:_MOST_LISTED])}{rest}'
