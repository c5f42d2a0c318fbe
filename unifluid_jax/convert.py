"""Converts weights: other projects' into ours, ours into theirs.

  python -m unifluid_jax.convert --source=weights/gemma-2-2b --dry_run
  python -m unifluid_jax.convert --source=weights/gemma-2-2b --out=gemma
  python -m unifluid_jax.convert --source=runs/mine --out=export
  python -m unifluid_jax.convert --source=runs/mine --to=gemma --out=export
  python -m unifluid_jax.convert --source=tokenizer.json --out=tokenizer.model

The source is a file or a folder of any family that is known, or the folder of
a training run. --dry_run prints the table of names and shapes from headers
alone. Without --to the result is in our own layout, which a training's `init`
section and `unifluid_jax.sample --workdir` read; see `own`.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from absl import flags, logging

from unifluid_jax.cli import entry_point
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.init import NEW_ROWS
from unifluid_jax.data.model_file import read_model
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.models.parameters import check_storage, storage_dtype
from unifluid_jax.utils.errors import UserError, check_matches
from unifluid_jax.utils.paths import local_path, to_path, write_whole
from unifluid_jax.weights import conversion_table, native_format, surgery
from unifluid_jax.weights.export import (
  OWN,
  TARGETS,
  Held,
  Weights,
  export,
  export_own,
)
from unifluid_jax.weights.format_detection import named_config
from unifluid_jax.weights.init_from_files import read_exported
from unifluid_jax.weights.layouts.tensor_layout import ENCODER, GEMMA, VAE
from unifluid_jax.weights.pretrained import Pretrained, open_pretrained
from unifluid_jax.weights.provenance import describe_files, verify
from unifluid_jax.weights.restore import (
  EMAWeights,
  abstract_ema_weights,
  restore_ema_weights,
)
from unifluid_jax.weights.safetensors_file import check_new
from unifluid_jax.weights.shapes import Config
from unifluid_jax.weights.tokenizers import convert_tokenizer
from unifluid_jax.workdir.run_config import read_experiment
from unifluid_jax.workdir.vocabulary_file import TOKENIZER_FILE

_SOURCE = flags.DEFINE_string('source', None, 'File or folder to read.')
_OUT = flags.DEFINE_string('out', None, 'Folder (or tokenizer file) to write.')
_TO = flags.DEFINE_enum(
  'to', OWN, [OWN, *TARGETS], 'Layout to write: ours, or Hugging Face.'
)
_MODEL = flags.DEFINE_string(
  'model', None, 'Named size that the source must be, e.g. gemma2_2b.'
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the table, write nothing.'
)
flags.DEFINE_alias('dry-run', 'dry_run')
_DTYPE = flags.DEFINE_multi_string(
  'dtype',
  [],
  'DTYPE of everything, or PATTERN=DTYPE of the parameters whose name matches; '
  'the first that matches counts. The dtype of the source without it.',
)
_VOCAB_SIZE = flags.DEFINE_integer('vocab_size', None, 'Rows of the embedding.')
_NEW_ROWS = flags.DEFINE_enum(
  'new_rows', '', ['', *NEW_ROWS], 'How added rows are initialized.'
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', None, 'Side in pixels to resize the position table for.'
)
_SURGERY = (_VOCAB_SIZE, _NEW_ROWS, _IMAGE_SIZE)


def main() -> None:
  """Does what the flags ask for."""
  source = str(to_path(entry_point.require(_SOURCE)))
  out = pathlib.Path()
  if not _DRY_RUN.value:
    out = local_path(entry_point.require(_OUT), f'--out={_OUT.value}')
  check_storage(_DTYPE.value, '--dtype')
  if source.endswith('.json'):
    _write_tokenizer(pathlib.Path(source), out)
    return
  if not _DRY_RUN.value:
    check_new(out)
  is_run = _is_run(pathlib.Path(source))
  lines, weights = (
    _from_run(pathlib.Path(source)) if is_run else _from_files(source)
  )
  if weights is None:
    _print(lines)
    return
  if _TO.value in TARGETS:
    export(weights, _TO.value, out, _dtype_of)
  else:
    export_own(weights, out, _dtype_of)
  logging.info('wrote the weights to %s', out)
  # Last, since the reader of a pipe may leave.
  _print(lines)


def _print(lines: Sequence[str]) -> None:
  sys.stdout.writelines(f'{line}\n' for line in lines)


def _dtype_of(name: str, own_dtype: np.dtype) -> np.dtype:
  """The dtype that the flags want a parameter in."""
  wanted = storage_dtype(_DTYPE.value, name)
  return own_dtype if wanted is None else np.dtype(wanted)


def _check_patterns(names: Collection[str]) -> None:
  """A pattern of --dtype that matches nothing is a mistake."""
  for entry in _DTYPE.value:
    check_matches(f'--dtype has {entry!r}', entry.rpartition('=')[0], names)


def _write_tokenizer(source: pathlib.Path, out: pathlib.Path) -> None:
  model = convert_tokenizer(source)
  if _DRY_RUN.value:
    return
  if out.exists():
    raise UserError(f'{out} exists; choose another --out')
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, model)
  except OSError as error:
    raise UserError(f'{out} cannot be written: {error.strerror}') from error
  logging.info('the tokenizer is %s', out)


def _is_run(folder: pathlib.Path) -> bool:
  try:
    return (folder / TOKENIZER_FILE).exists() and (
      folder / 'checkpoints'
    ).is_dir()
  except OSError as error:
    raise UserError(f'cannot read {folder}: {error.strerror}') from error


def _from_run(workdir: pathlib.Path) -> tuple[list[str], Weights | None]:
  """The EMA weights of a training run, and its VAE.

  Returns:
    The table to print, and what to write; None for --dry_run.
  """
  _check_as_it_is(workdir, 'a run', (_MODEL, *_SURGERY))
  experiment = read_experiment(workdir)
  tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE)
  abstract = _named(abstract_ema_weights(experiment, tokenizer, workdir))
  lines = [*conversion_table.lines_of_ours(abstract)]
  _check_patterns(abstract)
  if _DRY_RUN.value:
    return lines, None
  weights = restore_ema_weights(experiment, tokenizer, workdir)
  arrays = {name: Held(value) for name, value in _named(weights).items()}
  model = experiment.model
  return lines, Weights(
    arrays=arrays,
    configs={GEMMA: model.gemma, ENCODER: model.encoder, VAE: experiment.vae},
    experiment=to_dict(experiment),
    step=weights.step,
    tokenizer=(workdir / TOKENIZER_FILE).read_bytes(),
    source={'path': str(workdir)},
  )


def _named(weights: EMAWeights) -> dict[str, Any]:
  """All parameters, the VAE's under its own prefix."""
  vae = {f'{VAE}/{name}': value for name, value in weights.vae.items()}
  return weights.unifluid | vae


def _check_as_it_is(
  path: pathlib.Path, what: str, unknown: Sequence[flags.FlagHolder]
) -> None:
  """The config of a whole UniFluid says all of its shapes."""
  for flag in unknown:
    if flag.value:
      raise UserError(
        f'--{flag.name} is of parts, and {path} is {what}, which is written '
        'as it is; leave it out'
      )


def _from_files(path: str) -> tuple[list[str], Weights | None]:
  """The parts of a file or folder, with the surgery that the flags want.

  Returns:
    The table to print, and what to write; None for --dry_run.
  """
  metadata = native_format.read_metadata(path)
  experiment, step = None, None
  if 'experiment' in metadata:
    _check_as_it_is(pathlib.Path(path), 'a whole UniFluid', _SURGERY)
    experiment, step = read_exported(path)
    experiment = to_dict(build(Experiment, experiment, f'{path}: config'))
  wanted = dict([named_config(_MODEL.value)] if _MODEL.value else [])
  source = open_pretrained(path, configs=wanted)
  for part in wanted.keys() - source.configs.keys():
    raise UserError(f'--model is {_MODEL.value}, but {path} holds no {part}')
  lines = [*conversion_table.lines(source)]
  carried = {name: part.carried for name, part in source.parts.items()}
  _check_patterns(
    [
      *source.arrays,
      *(f'{part}/{name}' for part in carried for name in carried[part]),
    ]
  )
  _check_one_dtype(source)
  configs = {**source.configs, **wanted}
  _resize(configs, GEMMA, 'vocab_size', _VOCAB_SIZE.value)
  _resize(configs, ENCODER, 'image_size', _IMAGE_SIZE.value)
  arrays = surgery.fit(
    source.arrays,
    source.configs,
    configs,
    new_rows=_NEW_ROWS.value,
    resize_positions=_IMAGE_SIZE.value is not None,
    path=path,
    padding=source.padding,
    key='--vocab_size',
  )
  if _DRY_RUN.value:
    return lines, None
  verify(source)
  tokenizer = pathlib.Path(path) / TOKENIZER_FILE
  return lines, Weights(
    arrays=arrays,
    configs=configs,
    carried=carried,
    prefixes=metadata.get('prefixes')
    or {name: part.prefix for name, part in source.parts.items()},
    experiment=experiment,
    step=step,
    tokenizer=read_model(tokenizer) if tokenizer.is_file() else None,
    source=describe_files(path, source.reader.files),
  )


def _check_one_dtype(source: Pretrained) -> None:
  """A parameter of mixed dtypes could not be given back as it was."""
  for part in source.parts.values():
    for name, tensors in part.mixed.items():
      if storage_dtype(_DTYPE.value, name) is None:
        raise UserError(
          f'{source.path} holds {name} in several dtypes: {tensors}; choose '
          f"one, such as --dtype='^{name}$=float32'"
        )


def _resize(
  configs: dict[str, Config], part: str, key: str, value: int | None
) -> None:
  """Sets a size of a part that a flag gives."""
  if value is None:
    return
  if part not in configs:
    raise UserError(f'--{key} is given, but the source holds no {part}')
  if value < 1:
    raise UserError(f'--{key} is {value}; give a positive number')
  configs[part] = dataclasses.replace(configs[part], **{key: value})  # type: ignore[arg-type]


if __name__ == '__main__':
  entry_point.run(main)
