"""The table of the measures: results beside what they compare to."""

import difflib
import html
from collections.abc import Mapping
from typing import Any, NamedTuple

from unifluid_jax.config.sections.evaluation import EvaluationConfig
from unifluid_jax.evaluation.report.markup import mark, table
from unifluid_jax.utils.errors import UserError


class Row(NamedTuple):
  """A measure, what it is called, how it is taken, and its baselines."""

  title: str
  explanation: str
  baselines: Mapping[str, str] = {}


_NEAREST = 'the nearest drawing is of the right concept'
_OWN = 'as above, but the nearest of the trained concepts only'
_PARALLEL = 'as above, several tokens a decoding step'

ROWS = {
  't2i_train_nn_concept': Row('Text to image, training prompts', _NEAREST),
  't2i_train_nn_concept_parallel': Row('\u2026 in parallel', _PARALLEL),
  't2i_train_nn_concept_own_bank': Row('\u2026 own bank', _OWN),
  't2i_heldout_nn_concept': Row('Text to image, held-out drawings', _NEAREST),
  't2i_heldout_nn_concept_parallel': Row('\u2026 in parallel', _PARALLEL),
  't2i_heldout_nn_concept_own_bank': Row('\u2026 own bank', _OWN),
  't2i_composed_nn_concept': Row(
    'Text to image, held-out drawings on colored backgrounds',
    'the nearest drawing on that background is of the right concept',
  ),
  't2i_train_psnr_db': Row(
    'Text to image, training prompts',
    'mean PSNR against the drawing that the prompt describes',
  ),
  't2i_heldout_psnr_db': Row('\u2026 held-out prompts', 'mean PSNR'),
  't2i_train_kid': Row(
    'Text to image, training prompts',
    'kernel distance to the drawings, features of EfficientNet-lite0',
    {'t2i_train_kid_vae': 'the drawings after the VAE'},
  ),
  't2i_heldout_kid': Row(
    '\u2026 held-out prompts',
    'kernel distance to the drawings',
    {'t2i_heldout_kid_vae': 'the drawings after the VAE'},
  ),
  'edit_exact_nn': Row(
    'Editing, held-out pairs',
    'the nearest of all edited drawings is the wanted one',
    {'edit_copy_baseline': 'no edit'},
  ),
  'caption_train_exact': Row('Captions, training images', 'word for word'),
  'caption_heldout_exact': Row(
    'Captions, held-out drawings',
    'word for word, all skin tones',
    {'caption_heldout_nn_baseline': 'name of the nearest training image'},
  ),
  'caption_heldout_exact_untoned': Row(
    '\u2026 without skin tones', 'word for word'
  ),
  'vqa_category_heldout': Row(
    'Questions: category, held-out drawings',
    'word for word',
    {
      'vqa_category_majority': 'most frequent category',
      'vqa_category_nn_baseline': 'category of the nearest training image',
    },
  ),
  'vae_psnr_heldout_db': Row(
    'Reconstruction by the VAE, held-out concepts', 'mean PSNR'
  ),
}
"""The measures of the table, by name."""


def _own_image_rows(name: str, title: str, split: str, lines: str) -> dict:
  start = f'{name}_{split}'
  baselines = {
    f'{start}_other_psnr_db': 'against another line\u2019s image',
    f'{start}_vae_psnr_db': 'the image itself after the VAE',
  }
  row = Row(f'{title}, {lines}', 'mean PSNR against the image', baselines)
  return {f'{start}_psnr_db': row}


def _own_text_rows(name: str, title: str, split: str, lines: str) -> dict:
  start = f'{name}_{split}'
  rows = {
    f'{start}_exact': Row(f'{title}, {lines}', 'word for word'),
    f'{start}_overlap': Row('\u2026 overlap', 'mean F1 of the words'),
  }
  if name == 'caption':
    rows |= {
      f'{start}_cider_d': Row('\u2026 CIDEr-D', '0 to 10'),
      f'{start}_bleu_4': Row('\u2026 BLEU-4', 'of all captions together'),
      f'{start}_rouge_l': Row('\u2026 ROUGE-L', 'longest common subsequence'),
    }
  return rows


OWN_ROWS = {
  key: row
  for make, name, title in (
    (_own_image_rows, 't2i', 'Text to image'),
    (_own_image_rows, 'edit', 'Editing'),
    (_own_text_rows, 'caption', 'Captions'),
    (_own_text_rows, 'vqa', 'Answers'),
  )
  for split, lines in (('train', 'trained on'), ('heldout', 'held out'))
  for key, row in make(name, title, split, lines).items()
}
"""The measures of a user's own data, by name."""


def check_targets(config: EvaluationConfig) -> None:
  """Rejects a target that no row of the table has.

  Raises:
    UserError: There is one.
  """
  known = {**ROWS, **OWN_ROWS}
  for name in config.targets:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = f'did you mean {near[0]!r}?' if near else f'known: {list(known)}'
      raise UserError(f'evaluation.targets has no measure {name!r}; {hint}')


def measures_table(
  metrics: Mapping[str, Any],
  targets: Mapping[str, float],
  known: Mapping[str, Row] = ROWS,
) -> str:
  """The measures that were taken, with baselines, chance and targets.

  Args:
    metrics: The content of `metrics.json`.
    targets: What a measure should reach, by its name.
    known: The measures to show, in their order.
  """
  head = ['measure', 'result', 'baselines', 'n']
  if targets:
    head.insert(3, 'target')
  rows = []
  for name in (name for name in known if name in metrics):
    row = known[name]
    cells = [
      f'{html.escape(row.title)}<small>{html.escape(row.explanation)}<br>'
      f'<code>{name}</code></small>',
      _bar(name, metrics[name]),
      _compared(name, row, metrics),
      f'{metrics["counts"][name]:,}',
    ]
    if targets:
      cells.insert(3, _target(name, metrics[name], targets))
    rows.append(cells)
  return table(head, rows)


def kinds_table(
  title: str, metrics: Mapping[str, Any], group: str, majority: str = ''
) -> str:
  """A table of a group of measures, such as the types of question.

  Args:
    title: What the entries of the group are.
    metrics: All metrics.
    group: Name of the group.
    majority: Name of the group of the most frequent answers' accuracies.
  """
  head = [title, 'result', 'n']
  if majority:
    head.insert(2, 'most frequent answer')
  rows = []
  for kind, value in metrics[group].items():
    cells = [
      html.escape(kind),
      _bar(group, value),
      f'{metrics["counts"][group][kind]:,}',
    ]
    if majority:
      cells.insert(2, _format(group, metrics[majority][kind]))
    rows.append(cells)
  return table(head, rows)


def _format(name: str, value: float) -> str:
  """A value with its unit; fractions as per cent."""
  if _is_plain(name):
    return f'{value:.3f}'
  if name.endswith('_db'):
    return f'{value:.1f}\u202fdB'
  return f'{100 * value:.1f}\u202f%'


def _is_distance(name: str) -> bool:
  return name.endswith(('_kid', '_kid_vae'))


def _is_plain(name: str) -> bool:
  """Whether a measure has no unit and is no fraction."""
  return _is_distance(name) or name.endswith('_cider_d')


def _bar(name: str, value: float) -> str:
  """A value, and for a fraction a bar of that length."""
  text = f'<b>{_format(name, value)}</b>'
  if name.endswith('_db') or _is_plain(name):
    return text
  return (
    f'{text}<span class="bar"><i style="width:{100 * value:.0f}%"></i></span>'
  )


def _compared(name: str, row: Row, metrics: Mapping[str, Any]) -> str:
  """Baselines and chance, one a line."""
  lines = [
    f'{_format(name, metrics[key])} {html.escape(label)}'
    for key, label in row.baselines.items()
    if key in metrics
  ]
  if name in metrics['chance']:
    lines.append(f'{_percent(metrics["chance"][name])} by chance')
  return '<br>'.join(lines)


def _percent(fraction: float) -> str:
  """A small fraction as per cent, with two significant digits."""
  return f'{100 * fraction:.2g}\u202f%'


def _target(name: str, value: float, targets: Mapping[str, float]) -> str:
  if name not in targets:
    return ''
  goal = targets[name]
  if _is_distance(name):
    return f'{mark(value <= goal)} \u2264\u202f{_format(name, goal)}'
  return f'{mark(value >= goal)} \u2265\u202f{_format(name, goal)}'
