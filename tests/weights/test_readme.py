"""The README's commands, word for word, on tiny files of the same layouts."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from itertools import count

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration, SiglipModel
from transformers import SiglipConfig as BothConfig

from experiments import paligemma
from tests import process
from tests.weights import hub, official
from unifluid_jax.config.builder import build, to_dict
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data import prompts
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.data.vocabulary import train_tokenizer
from unifluid_jax.weights.assembly import read
from unifluid_jax.weights.pretrained import open_pretrained

# Pieces of the vocabulary, and rows of the tables, as published: the official
# tables have 128 more rows, PaliGemma's in transformers 64.
PIECES = 512
GEMMA = {1: 'gemma 1 MQA', 2: 'gemma 2 GQA', 3: 'gemma 3 MQA'}
SIGLIP = 'one layer'


def commands() -> list[list[str]]:
  """The commands of each block of the section on pretrained weights."""
  text = (process.ROOT / 'unifluid_jax' / 'weights' / 'README.md').read_text(
    encoding='utf-8'
  )
  section = text.split('## Pretrained weights')[1].split('\n## ')[0]
  blocks = re.findall(r'```bash\n(.*?)```', section, re.DOTALL)
  return [block.replace('\\\n', '').strip().splitlines() for block in blocks]


def arrays(hf) -> dict[str, np.ndarray]:
  return {
    name: np.ascontiguousarray(value.numpy())
    for name, value in hf.state_dict().items()
  }


class Hub:
  """Makes what the commands download, in a folder."""

  def __init__(self, folder: pathlib.Path):
    self.weights = folder / 'weights'
    self.weights.mkdir()
    experiment = build(Experiment, paligemma.get_config('tiny'))
    tasks = make_tasks(experiment, experiment.data.sources)
    self.vocabulary = folder / 'tokenizer.model'
    train_tokenizer(tasks, PIECES, self.vocabulary)

  def download(self, source: str, to: pathlib.Path) -> None:
    name = pathlib.PurePosixPath(source).name
    if name.endswith('.model'):
      to.write_bytes(self.vocabulary.read_bytes())
    elif name.startswith('paligemma'):
      self._paligemma(2 if '2' in name.split('-')[0] else 1, to)
    elif name.startswith('gemma') and source.startswith('gs://'):
      self._official(to)
    elif name.startswith('gemma'):
      generation = 3 if '-3-' in name else 2
      hub.save(hub.gemma(GEMMA[generation], vocab_size=PIECES), to)
      self._tokenizer(to)
    elif name.endswith('.npz'):
      hf = hub.siglip(SIGLIP)
      config = open_pretrained(str(hub.save(hf, to.with_suffix('.hf'))))
      tree = official.siglip(
        arrays(hf), config.configs['encoder'], '', stacked=True
      )
      tree['params/txt/Embed_0/embedding'] = np.ones((3, 4), np.float32)
      np.savez(to, **tree)
    elif name.startswith('siglip'):
      vision = hub.siglip_config(SIGLIP).to_dict()
      words = {'vocab_size': 32, 'hidden_size': 20, 'num_attention_heads': 2}
      words |= {'num_hidden_layers': 1, 'intermediate_size': 8}
      both = SiglipModel(BothConfig(text_config=words, vision_config=vision))
      hub.save(hub.randomize(both), to)
    elif name == 'sd-vae-ft-ema':
      hub.save(hub.vae('sd'), to)
      file = to / 'diffusion_pytorch_model.safetensors'
      save_file(official.old_attention(load_file(file)), file)
    elif name.startswith('kl16.ckpt'):
      tensors = official.ldm(arrays(hub.vae('16 channels')), 2)
      kept = {name: torch.tensor(value) for name, value in tensors.items()}
      torch.save({'model': kept, 'model_ema': kept}, to)
    else:
      raise AssertionError(f'the README downloads {source}')

  def shapes(self) -> dict[str, dict]:
    """What the files hold, as sections of a config."""

    folders = (self.weights.parent / 'shapes' / str(n) for n in count())

    def config(model, part):
      saved = hub.save(model, next(folders))
      return to_dict(open_pretrained(str(saved)).configs[part])

    result = {
      'encoder': config(hub.siglip(SIGLIP), 'encoder'),
      'vae 4': config(hub.vae('sd'), 'vae'),
      'vae 16': config(hub.vae('16 channels'), 'vae'),
    }
    for generation, case in GEMMA.items():
      model = hub.gemma(case, vocab_size=PIECES)
      result[f'gemma {generation}'] = config(model, 'gemma')
    for generation in (1, 2):
      model = hub.paligemma(GEMMA[generation], SIGLIP, 0, PIECES + 64)
      result[f'gemma {generation}+'] = config(model, 'gemma')
    return result

  def _tokenizer(self, folder):
    (folder / 'tokenizer.model').write_bytes(self.vocabulary.read_bytes())

  def _paligemma(self, generation, to):
    case = GEMMA[generation]
    is_jax = 'jax' in to.name
    rows = PIECES if is_jax else PIECES + 64
    model = hub.paligemma(case, SIGLIP, 0, rows)
    if not is_jax:
      hub.save(model, to, max_shard_size='200KB')
      self._tokenizer(to)
      return
    source = open_pretrained(str(hub.save(model, to.with_suffix('.hf'))))
    to.mkdir()
    np.savez(
      to / 'paligemma.npz', **official.paligemma(arrays(model), source.configs)
    )

  def _official(self, to):
    hf = hub.gemma(GEMMA[2], vocab_size=PIECES + 128)
    source = open_pretrained(str(hub.save(hf, to.with_suffix('.hf'))))
    config = source.configs['gemma']
    tree = official.gemma_values(arrays(hf), config, turned=False, mha=False)
    ocp.PyTreeCheckpointer().save(to.absolute(), official.flat(tree))


def destination(command: list[str]) -> tuple[str, str]:
  """What a command downloads, and where to."""
  if command[0] == 'hf':
    return command[2], command[command.index('--local-dir') + 1]
  if command[0] == 'wget':
    return pathlib.PurePath(command[2]).name, command[2]
  source, folder = command[-2:]
  return source, f'{folder}{pathlib.PurePosixPath(source).name}'


def run(command: list[str], folder: pathlib.Path) -> None:
  published = {'vocab_size=257152': f'vocab_size={PIECES}'}
  words = [sys.executable, *command[1:]]
  for old, new in published.items():
    words = [word.replace(old, new) for word in words]
  environment = (
    os.environ | process.ENVIRONMENT | {'PYTHONPATH': str(process.ROOT)}
  )
  done = subprocess.run(
    words,
    cwd=folder,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert done.returncode == 0, (shlex.join(command), done.stdout)


@pytest.mark.slow
@pytest.mark.long
def test_every_command_does_what_the_readme_says(tmp_path):
  """One test, since processes that share the tests would each run them all."""
  walk(tmp_path)
  check_every_start_trains_and_captions(tmp_path)
  check_the_first_caption_is_transformers(tmp_path)
  check_what_was_exported_is_what_was_trained(tmp_path)


def walk(folder: pathlib.Path) -> None:
  """Runs all commands of the section in a folder."""
  (folder / 'experiments').mkdir()
  for name in ('paligemma', 'unifluid_2b'):
    (folder / 'experiments' / f'{name}.py').write_text(
      f'from experiments import {name}\n'
      'from tests.configs import downloaded\n'
      'def get_config(arg=None):\n'
      f'  return downloaded.shrink({name}.get_config(arg))\n'
    )
  pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  Image.fromarray(pixels).save(folder / 'photo.png')
  files = Hub(folder)
  (folder / 'shapes.json').write_text(json.dumps(files.shapes()))
  for block in commands():
    for line in block:
      command = shlex.split(line)
      if command[0] == 'python':
        run(command, folder)
      elif command[0] in ('hf', 'gcloud', 'wget'):
        source, place = destination(command)
        if not (folder / place).exists():
          files.download(source, folder / place)
      else:
        assert command[0] in ('pip', 'tfds'), line
        assert command[0] == 'tfds' or command[:3] == ['pip', 'install', '-e']


def caption(folder: pathlib.Path, run_name: str) -> str:
  written = json.loads((folder / 'out' / run_name / 'samples.json').read_text())
  return written['samples'][0]['text']


def check_every_start_trains_and_captions(walked: pathlib.Path) -> None:
  for name in ('paligemma1', 'paligemma2', '2b', 'official', 'gemma3'):
    assert caption(walked, name)
    steps = (walked / 'runs' / name / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(steps[-1])['step'] == 1


def check_the_first_caption_is_transformers(walked: pathlib.Path) -> None:
  """Greedy, with PaliGemma's own prompt and vocabulary."""
  path = walked / 'weights' / 'paligemma2-3b-pt-224'
  hf = PaliGemmaForConditionalGeneration.from_pretrained(
    path, attn_implementation='eager'
  ).eval()
  tokenizer = Tokenizer.load(str(path / 'tokenizer.model'))
  image = np.asarray(Image.open(walked / 'photo.png'), np.float32)
  pixels = torch.tensor(image.transpose(2, 0, 1)[None] / 127.5 - 1)
  prefix = [hf.config.image_token_id] * 16
  prefix += [tokenizer.bos_id, *tokenizer.encode(prompts.CAPTION)]
  prefix += [tokenizer.separator_id]
  written: list[int] = []
  while len(written) < 32 and tokenizer.eos_id not in written:
    ids = torch.tensor([prefix + written])
    kinds = torch.tensor([[0] * len(prefix) + [1] * len(written)])
    with torch.no_grad():
      logits = hf(
        input_ids=ids,
        pixel_values=pixels,
        attention_mask=torch.ones_like(ids),
        token_type_ids=kinds,
      ).logits
    # Rows that pad the table are no pieces.
    written.append(int(logits[0, -1, : tokenizer.vocab_size].argmax()))
  expected = [token for token in written if token != tokenizer.eos_id]
  assert caption(walked, 'paligemma2') == tokenizer.decode(expected)


def check_what_was_exported_is_what_was_trained(walked: pathlib.Path) -> None:
  assert caption(walked, 'export') == caption(walked, '2b')
  export = walked / 'export' / '2b'
  assert json.loads((export / 'config.json').read_text())['step'] == 1
  flags = [f'--source={export}', f'--out={walked / "out" / "longer"}']
  told = process.fail('convert', *flags, '--vocab_size=600')
  assert f'--vocab_size is of parts, and {export} is a whole UniFluid' in told
  table = process.succeed(
    'convert', f'--source={walked / "runs" / "2b"}', '--dry_run'
  )
  names = {line.split()[0] for line in table.splitlines() if line[0] == ' '}
  assert names == {*open_pretrained(str(export)).arrays}
  ours = open_pretrained(str(walked / 'export' / '2b')).arrays
  for part, folder in (
    ('gemma', 'gemma'),
    ('encoder', 'siglip'),
    ('vae', 'vae'),
  ):
    found = open_pretrained(str(walked / 'export' / folder)).arrays
    assert {*found} == {name for name in ours if name.startswith(f'{part}/')}
    for name, array in found.items():
      expected = read(ours[name]).astype(array.dtype)
      assert read(array).tobytes() == expected.tobytes(), name
