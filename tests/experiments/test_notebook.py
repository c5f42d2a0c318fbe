"""The notebook runs from its first to its last cell."""

import pathlib

import nbclient
import nbformat
import pytest

FILE = (
  pathlib.Path(__file__).parents[2] / 'experiments/notebooks/quickstart.ipynb'
)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
  notebook = nbformat.read(FILE, as_version=4)
  (cell,) = [
    cell
    for cell in notebook.cells
    if 'parameters' in cell.metadata.get('tags', ())
  ]
  cell.source = (
    f"config = 'experiments/quickstart.py:tiny'\nworkdir = {str(tmp_path)!r}"
  )
  client = nbclient.NotebookClient(
    notebook,
    timeout=600,
    resources={'metadata': {'path': str(FILE.parent)}},
  )
  client.execute()
  shown = [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  ]
  assert len(shown) == 4
