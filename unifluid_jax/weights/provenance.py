"""Records the origin of weights and verifies their checksums."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights import native_format
from unifluid_jax.weights.pretrained import Pretrained
from unifluid_jax.weights.unused_tensors import check_tied


def describe_files(path: str, files: Iterable[pathlib.Path]) -> dict[str, Any]:
  """A source for the metadata: its path, its files, their SHA-256.

  Args:
    path: What was opened.
    files: Its files; the files of a folder count each, by their names in it.
      What is not on a local disk has no checksum.
  """
  root = pathlib.Path(path)
  root = root if root.is_dir() else root.parent
  every = sorted(
    file
    for given in files
    for file in (given.rglob('*') if given.is_dir() else [given])
    if file.is_file()
  )
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    digests = pool.map(_digest, every)
    return {
      'path': path,
      'files': {
        file.relative_to(root).as_posix(): {
          'bytes': file.stat().st_size,
          'sha256': digest,
        }
        for file, digest in zip(every, digests, strict=True)
      },
    }


def verify(source: Pretrained) -> None:
  """Reads what must be equal: our own tensors to their checksums, others' text
  head to their embedding table.

  Of several processes, each checks its share of the checksums.

  Args:
    source: What was opened.

  Raises:
    UserError: A tensor is not what was written, or Gemma's head is not tied.
  """
  for head, table in source.heads.items():
    check_tied(source.reader, head, table)
  if not native_format.is_own(source.path):
    return
  reader = source.reader
  checksums: Mapping[str, str] = native_format.read_metadata(source.path)[
    'checksums'
  ]
  share = sorted(source.arrays)[jax.process_index() :: jax.process_count()]

  def check(name: str) -> str | None:
    values = np.ascontiguousarray(reader.read(name)).reshape(-1)
    found = hashlib.sha256(values.view(np.uint8).data).hexdigest()
    return None if found == checksums.get(name) else name

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    wrong = [name for name in pool.map(check, share) if name]
  if wrong:
    raise UserError(
      f'{wrong[0]} in {reader.header[wrong[0]].file} does not have its '
      f'checksum ({len(wrong)} such tensors): the file is damaged; copy or '
      'convert it again'
    )


def _digest(file: pathlib.Path) -> str:
  with file.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()
