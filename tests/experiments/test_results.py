"""Tables of results hold the figures of the checked-in metrics.json files."""

import json
import re

import pytest

from tests.process import ROOT

RESULTS = ROOT / 'experiments' / 'results'


def cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip().strip('|').split('|')]


def find_rows(text: str) -> list[tuple[str, str, str]]:
  """The figures of all tables whose header names a run that has a file."""
  runs = {path.stem for path in RESULTS.glob('*.json')}
  rows, columns = [], {}
  for line in text.splitlines():
    if not line.startswith('|'):
      columns = {}
      continue
    found = cells(line)
    if not columns:
      names = [re.match(r'\w*', cell).group() for cell in found]
      columns = {i: name for i, name in enumerate(names) if name in runs}
      columns = columns or {-1: ''}
      continue
    key = re.match(r'`(\w+(?:/\w+)?)`', found[0])
    if key:
      rows += [
        (key.group(1), run, found[i])
        for i, run in columns.items()
        if i > 0 and i < len(found) and found[i]
      ]
  return rows


@pytest.mark.parametrize('file', ['README.md', 'experiments/README.md'])
def test_tables_hold_the_figures_of_the_runs(file):
  rows = find_rows((ROOT / file).read_text(encoding='utf-8'))
  assert len(rows) >= 7
  for key, run, text in rows:
    metrics = json.loads((RESULTS / f'{run}.json').read_text())
    name, _, kind = key.partition('/')
    value = metrics[name][kind] if kind else metrics[name]
    shown = f'{value:.1f} dB' if name.endswith('_db') else f'{value:.1%}'
    assert text == shown.replace('%', ' %'), (key, run)


def test_runs_say_what_made_them():
  for path in RESULTS.glob('*.json'):
    manifest = json.loads(path.read_text())['manifest']
    assert manifest['git_commit'] and manifest['seed'] == 0, path
