"""The page: valid, self-contained, with all its pictures."""

import dataclasses
import html.parser
import re

import pytest

from tests.evaluation import fakes
from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.evaluation.manifest import make_manifest
from unifluid_jax.evaluation.metrics_file import TIMING, to_metrics
from unifluid_jax.evaluation.report import frames, image_grids, texts
from unifluid_jax.evaluation.report.page import Report, render
from unifluid_jax.evaluation.results import evaluate

VOID = ('img', 'meta', 'br')
CONFIG = EvaluationConfig(
  samples=3, prompts=60, captions=40, questions=3, edits=40
)


class Checker(html.parser.HTMLParser):
  """Counts elements, and checks that they are nested properly."""

  def __init__(self, page):
    super().__init__()
    self.open = []
    self.attributes = []
    self.text = ''
    self.feed(page)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.attributes.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.attributes.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def count(self, tag):
    return sum(name == tag for name, _ in self.attributes)


def make_page(model, config=CONFIG):
  results = evaluate(model, config)
  manifest = make_manifest(model, config)
  sizes = {'concepts': 40}
  metrics = to_metrics(results.measures, sizes, dict.fromkeys(TIMING), manifest)
  log = [
    {
      'step': step,
      'seconds_per_step': 0.5,
      'loss_image': 1 / step,
      'loss_text': 2 / step,
      'psnr': step,
      **{f'probe_train_{p}': 1 / step for p in ('right', 'wrong', 'no')},
    }
    for step in (1, 50, 100)
  ]
  return render(Report('<run>', model, config, results, metrics, log, log))


@pytest.fixture(scope='module')
def page(experiment, letters):
  return make_page(fakes.Oracle(experiment, letters))


def test_the_probe_is_plotted_where_it_was_measured(page):
  assert 'Image loss by prompt, training images' in page
  assert 'Image loss by prompt, held-out images' not in page


def test_the_page_is_well_formed(page):
  assert page.startswith('<!DOCTYPE html>')
  checker = Checker(page)
  assert checker.open == []
  assert 'UniFluid on emoji: <run>' in checker.text
  assert checker.count('section') == 8


def test_the_page_needs_nothing_else(page):
  assert not re.search(r'https?:', page)
  assert not re.search(r'url\(|@import|<script|<link', page)
  checker = Checker(page)
  sources = [a['src'] for tag, a in checker.attributes if tag == 'img']
  assert all(source.startswith('data:image/png;base64,') for source in sources)


def test_all_pictures_are_there(page, experiment):
  heldout = min(image_grids.HELD_OUT_PROMPTS, 20)
  tokens = experiment.grid**2
  expected = (
    2 * image_grids.TRAINING_PROMPTS
    + heldout * (1 + CONFIG.samples + 1)
    + 2 * image_grids.COMPOSED_PROMPTS
    + 2 * image_grids.PARALLEL_PROMPTS
    + image_grids.FILLING_IN * (1 + min(frames.FRAMES, tokens))
    + 3 * image_grids.EDITS
    + 2 * texts.CAPTIONS
    + texts.ANSWERS
    + 8  # answers that went wrong
    + 2 * image_grids.RECONSTRUCTIONS
  )
  checker = Checker(page)
  assert checker.count('img') == expected
  assert (
    checker.count('polyline') == 6
  )  # three losses, three prompts of the probe


def test_failures_are_shown_too(experiment, letters):
  page = make_page(fakes.FakeModel(experiment, letters))
  assert Checker(page).open == []
  for title in ('Training prompts', 'Edits', 'Training images', 'Questions'):
    assert f'{title}: 8 more of those that went wrong' in page
  assert (
    '\u2713</span> <b>' not in page.split('<h2>Editing')[1].split('<h2>')[0]
  )


def test_targets_are_marked_as_reached_or_not(experiment, letters):
  targets = {'edit_exact_nn': 0.5, 't2i_train_nn_concept': 1.01}
  config = dataclasses.replace(CONFIG, targets=targets)
  page = make_page(fakes.Oracle(experiment, letters), config)
  rows = page.split('<h2>Measures')[1].split('<h2>')[0].split('<tr>')
  (edit,) = (row for row in rows if '<code>edit_exact_nn<' in row)
  (train,) = (row for row in rows if '<code>t2i_train_nn_concept<' in row)
  (other,) = (row for row in rows if '<code>caption_train_exact<' in row)
  assert 'class="right"' in edit
  assert '50.0\u202f%' in edit
  assert 'class="wrong"' in train
  assert 'class="right"' not in other


@pytest.mark.parametrize('order', ['causal', 'masked'])
def test_any_config_has_a_page(letters, order):
  experiment = fakes.make_experiment('untoned few')
  experiment = dataclasses.replace(
    experiment, model=dataclasses.replace(experiment.model, decoding=order)
  )
  page = make_page(fakes.Oracle(experiment, letters))
  assert Checker(page).open == []
  assert '<th scope="row">tone</th>' not in page
