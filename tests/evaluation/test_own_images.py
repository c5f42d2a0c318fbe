"""Runs on a user's own data: measures and a report, with known answers."""

import json
import re

import numpy as np
import PIL.Image
import pytest

from experiments import own_images
from tests.evaluation import fakes
from tests.evaluation.report.test_page import Checker
from unifluid_jax import inference
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.evaluation.runner import check_evaluation, evaluate_run
from unifluid_jax.utils.errors import UserError

COUNT = 30
SIDE = 16


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Captioned images, some with two captions, and questions and edits."""
  folder = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  lines = []
  for i in range(COUNT):
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f'{i}.png')
    texts = [f'picture {i}', f'image  {i} <b>']
    lines += [
      {'image': f'{i}.png', 'text': texts if i % 2 else texts[0]},
      {'image': f'{i}.png', 'question': f'which {i}?', 'answer': str(i)},
      {'source': f'{(i + 1) % COUNT}.png', 'instruction': f'be {i}'}
      | {'image': f'{i}.png'},
    ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'captions.jsonl').write_text(text)
  return folder


def experiment_of(photos, **data) -> Experiment:
  path = photos / 'captions.jsonl'
  config = own_images.get_config(f'path={path},size={SIDE}')
  draw = config.data.sources.draw.to_dict()
  config.data.sources = {
    'draw': draw,
    'read': draw | {'task': 'captioning'},
    'ask': draw | {'task': 'vqa'},
    'edit': draw | {'task': 'editing'},
  }
  config.data.update(heldout=0.3, **data)
  return build(Experiment, config)


class Knowing(fakes.FakeModel):
  """Draws what it is asked for, and never what was held out."""

  def __init__(self, experiment, tokenizer, photos):
    super().__init__(experiment, tokenizer)
    images = [
      np.asarray(PIL.Image.open(photos / f'{i}.png')) for i in range(COUNT)
    ]
    self.pictures = images
    self.of_pixels = {image.tobytes(): i for i, image in enumerate(images)}

  def sample_images(self, examples, seed=0, samples=1, sampling=None):
    assert sampling in (
      self.experiment.sampling,
      self.experiment.editing,
    )
    numbers = [int(re.findall('[0-9]+', e.prefix[-1])[0]) for e in examples]
    return self._pictures([self.pictures[number] for number in numbers])

  def sample_texts(self, examples, seed=0, sampling=None):
    assert sampling.temperature == 0
    texts = []
    for example in examples:
      number = self.of_pixels[example.prefix[0].tobytes()]
      is_question = 'answer' in example.prefix[1]
      texts.append(str(number) if is_question else f'picture {number}')
    return texts

  def reconstruct(self, images):
    return images.astype(np.float32) / 127.5 - 1


@pytest.fixture
def run(tmp_path, letters, photos, monkeypatch):
  """Evaluates a run; gives its metrics and its page."""

  def evaluate(experiment, model=Knowing):
    model = model(experiment, letters, photos)
    monkeypatch.setattr(inference, 'load', lambda workdir, tensor: model)
    line = {
      'step': 2,
      'seconds_per_step': 0.5,
      'loss_image': 1.0,
      'loss_text': 2.0,
    }
    held = {'heldout_loss_image': 3.0} if experiment.data.heldout else {}
    (tmp_path / 'metrics.jsonl').write_text(json.dumps(line | held) + '\n')
    evaluate_run(tmp_path)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    return metrics, (tmp_path / 'report.html').read_text()

  return evaluate


def test_a_model_that_knows_all(run, photos):
  metrics, page = run(experiment_of(photos))
  for split in ('train', 'heldout'):
    for task in ('caption', 'vqa'):
      assert metrics[f'{task}_{split}_exact'] == 1
      assert metrics[f'{task}_{split}_overlap'] == 1
    assert metrics[f'caption_{split}_rouge_l'] == pytest.approx(1)
    assert metrics[f'caption_{split}_cider_d'] > 1
    assert f'vqa_{split}_rouge_l' not in metrics
    for task in ('t2i', 'edit'):
      assert metrics[f'{task}_{split}_psnr_db'] == 100
      # Two random images: a sixth is the mean square of the difference.
      other = metrics[f'{task}_{split}_other_psnr_db']
      assert other == pytest.approx(10 * np.log10(6), abs=0.5)
  counts = metrics['lines']
  held = counts['captioning']['heldout']
  assert held and counts['captioning']['train'] + held == COUNT
  assert counts['text_to_image'] == counts['captioning'] == counts['vqa']
  assert metrics['counts']['caption_heldout_exact'] == held
  assert 'drawings' not in metrics['manifest']
  assert [*metrics['manifest']['decoding']] == ['text_to_image', 'edit', 'text']

  checker = Checker(page)
  assert not checker.open
  assert checker.count('section') == 7
  assert 'Held-out lines' in checker.text
  assert 'emoji' not in checker.text.split('The whole config')[0]
  shown = min(held, 24)
  trained = min(COUNT - held, 16)
  edits = counts['editing']
  shown_edits = min(edits.get('train', 0), 16) + min(edits['heldout'], 24)
  # Three tiles a drawing, four an edit, one a text.
  assert checker.count('img') == 5 * (shown + trained) + 4 * shown_edits
  assert 'reference: picture 1 / image 1 &lt;b&gt;' in page
  assert re.search(r'held out</text>', page)


class White(Knowing):
  """Draws white and says nothing."""

  def sample_images(self, examples, seed=0, samples=1, sampling=None):
    return self._pictures([self.drawn('') for _ in examples])

  def sample_texts(self, examples, seed=0, sampling=None):
    return ['' for _ in examples]


def test_a_model_that_knows_nothing(run, photos):
  metrics, page = run(experiment_of(photos), White)
  assert metrics['caption_train_exact'] == metrics['vqa_heldout_overlap'] == 0
  # The mean square of a uniform value is a third.
  assert metrics['t2i_train_psnr_db'] == pytest.approx(4.77, abs=0.3)
  assert '(nothing)' in page and 'more of those that went wrong' in page


def test_without_held_out_lines(run, photos):
  experiment = experiment_of(photos)
  config = own_images.get_config(
    f'path={photos / "captions.jsonl"},size={SIDE}'
  )
  config.data.heldout = 0.0
  experiment = build(Experiment, config)
  metrics, page = run(experiment)
  assert metrics['lines'] == {
    'text_to_image': {'train': COUNT},
    'captioning': {'train': COUNT},
  }
  assert not [name for name in metrics if 'heldout' in name]
  assert 'No line was held out.' in page and 'held out</text>' not in page


def test_data_that_went_away_is_told_before_the_work(run, photos, tmp_path):
  config = own_images.get_config(f'path={tmp_path}/gone.jsonl,size={SIDE}')
  with pytest.raises(UserError, match=r'cannot read .*gone\.jsonl'):
    run(build(Experiment, config))
  assert not (tmp_path / 'metrics.json').exists()


def test_targets_may_name_measures_of_ones_own_data(photos):
  config = own_images.get_config(f'path={photos / "captions.jsonl"}')
  config.evaluation.targets = {'caption_heldout_overlap': 0.5}
  check_evaluation(build(Experiment, config))
  config.evaluation.targets = {'caption_heldout_overlapp': 0.5}
  with pytest.raises(UserError, match="mean 'caption_heldout_overlap'"):
    check_evaluation(build(Experiment, config))
