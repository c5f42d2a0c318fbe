"""A refused start of any entry point leaves nothing behind."""

import pytest

from tests import process
from tests.training.folders import write_lines

pytestmark = pytest.mark.slow

_PLAN = ['--topology=v5e:2x2']


@pytest.mark.parametrize(
  ('module', 'output', 'flags'),
  [
    ('train_vae', '--workdir', []),
    pytest.param('train', '--workdir', [], marks=pytest.mark.long),
    pytest.param('quickstart', '--workdir', [], marks=pytest.mark.long),
    pytest.param('bench', '--json', [], marks=pytest.mark.long),
    ('plan', '--json', _PLAN),
  ],
)
def test_nothing_is_left(module, output, flags, tmp_path):
  if module == 'plan':
    pytest.importorskip('libtpu')
  captions = write_lines(tmp_path, ['short', *['1' * 150] * 15])
  before = {*tmp_path.rglob('*')}
  # A folder of a run is made where it is not; the others need theirs.
  place = tmp_path / ('a/run' if output == '--workdir' else 'figures.json')
  code, told = process.run(
    module,
    f'--config={process.CONFIG}:{captions}',
    "--config.optimizer.lr_multipliers={'^haed/': 3.0}",
    f'{output}={place}',
    *flags,
  )
  assert code == 1, told
  assert 'Traceback' not in told
  message = told[told.index('error: ') :]
  assert "optimizer.lr_multipliers has '^haed/'" in message
  assert '15 records do not fit; set data.max_text = 150 (it is 96)' in message
  assert 'captions.jsonl, line 2 needs data.max_text = 150' in message
  assert 'and 5 more' in message
  assert {*tmp_path.rglob('*')} == before
