"""The loss curves of a run's logs."""

from collections.abc import Mapping, Sequence

from unifluid_jax.evaluation.report.markup import paragraph, section
from unifluid_jax.evaluation.report.plots import Line, plot

Log = Sequence[Mapping[str, float]]
"""Lines of `metrics.jsonl`: averages since the line before, by name."""


def training_seconds(log: Log) -> float:
  """Seconds that the steps of a log took, without pauses."""
  seconds, last = 0.0, 0.0
  for line in log:
    seconds += (line['step'] - last) * line['seconds_per_step']
    last = line['step']
  return seconds


def curves_section(vae: Log, unifluid: Log) -> str:
  """Plots of the VAE's and of UniFluid's training, as far as there are logs."""
  plots = (
    plot(
      'Losses of UniFluid over its training',
      [
        _line('image loss', unifluid, 'loss_image'),
        _line('text loss', unifluid, 'loss_text'),
      ],
      'step of UniFluid',
      'loss',
      log=True,
    ),
    *_probe_plots(unifluid),
    _vae_plot(vae),
  )
  text = (
    'Image loss: error of the diffusion head, mean over the dimensions of a '
    'token. Text loss: cross-entropy in nats per token, before its weight. '
    'Each point is a mean over the steps since the one before.'
  )
  if vae:
    text += (
      ' The VAE\u2019s reconstruction error is shown as PSNR, which is its '
      'logarithm.'
    )
  return section(
    'Training',
    paragraph(text),
    f'<div class="plots">{"".join(plots)}</div>',
  )


def own_curves_section(vae: Log, unifluid: Log) -> str:
  """Plots of the losses beside those of held-out lines, and of the VAE's."""
  plots = [
    plot(
      f'The {name} loss over the training of UniFluid',
      [
        _line('training', unifluid, f'loss_{name}'),
        *_present(_line('held out', unifluid, f'heldout_loss_{name}')),
      ],
      'step of UniFluid',
      f'{name} loss',
      log=True,
    )
    for name in ('image', 'text')
  ]
  plots += [*_probe_plots(unifluid), _vae_plot(vae)]
  return section(
    'Training',
    paragraph(
      'Image loss: error of the diffusion head. Text loss: cross-entropy in '
      'nats per token. A held-out loss that rises while the training loss '
      'falls shows that the model learns its lines by heart.'
    ),
    f'<div class="plots">{"".join(plots)}</div>',
  )


def _vae_plot(vae: Log) -> str:
  return plot(
    'PSNR of the VAE over its training',
    [_line('PSNR of training images', vae, 'psnr')],
    'step of the VAE',
    'dB',
    log=False,
  )


def _probe_plots(unifluid: Log) -> list[str]:
  """How much the prompt lowers the image loss, if that was measured."""
  titles = {'train': 'training images', 'heldout': 'held-out images'}
  return [
    plot(
      f'Image loss by prompt, {title}',
      [
        _line(f'{prompt} prompt', unifluid, f'probe_{split}_{prompt}')
        for prompt in ('right', 'wrong', 'no')
      ],
      'step of UniFluid',
      'image loss',
      log=True,
    )
    for split, title in titles.items()
    if any(f'probe_{split}_right' in line for line in unifluid)
  ]


def _present(line: Line) -> list[Line]:
  return [line] if line.points else []


def _line(name: str, log: Log, key: str) -> Line:
  return Line(name, [(line['step'], line[key]) for line in log if key in line])
