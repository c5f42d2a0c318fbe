"""NumPy's .npz, as big_vision writes them.

The file is a zip of .npy files. A member that is stored, as `numpy.savez`
does, is mapped where it lies; one that is compressed is unpacked when asked
for. Nothing else of the file is read, and no pickle.
"""

import math
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy

from unifluid_jax.utils import lfs
from unifluid_jax.utils.errors import UserError
from unifluid_jax.weights.layouts.tensor_layout import Tensor
from unifluid_jax.weights.readers.dtypes import BFLOAT16

_SUFFIX = '.npy'
_LOCAL_HEADER = 30  # bytes before the member's name (zip's APPNOTE.TXT, 4.3.7)
# What zipfile and numpy raise of damaged bytes; NotImplementedError and
# RuntimeError of members that claim to be packed or encrypted in unknown ways.
_DAMAGE = (
  zipfile.BadZipFile,
  zlib.error,
  struct.error,
  tokenize.TokenError,
  EOFError,
  MemoryError,
  OSError,
  OverflowError,
  RuntimeError,
  TypeError,
  ValueError,
)


class _Member(NamedTuple):
  """A member's array.

  Attributes:
    info: The member.
    dtype: Of the array.
    fortran: Whether its axes are stored in reverse.
    offset: Where the values start in the unpacked member.
  """

  info: zipfile.ZipInfo
  dtype: np.dtype
  fortran: bool
  offset: int


class NpzReader:
  """The arrays of one .npz."""

  def __init__(self, path: pathlib.Path):
    """Reads the zip's directory and the arrays' headers.

    Raises:
      UserError: It is no .npz, or not complete.
    """
    self.files: tuple[pathlib.Path, ...] = (path,)
    self.header: dict[str, Tensor] = {}
    self._members: dict[str, _Member] = {}
    lfs.check_file(path)
    try:
      with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
          if info.filename.endswith(_SUFFIX):
            self._add(archive, info)
    except _DAMAGE as error:
      raise UserError(
        f'{path} is not a complete .npz ({error}); download it again'
      ) from error

  def read(self, name: str) -> np.ndarray:
    """Maps an array, or unpacks it."""
    member, shape = self._members[name], self.header[name].shape
    path = self.files[0]
    order: Literal['C', 'F'] = 'F' if member.fortran else 'C'
    if not math.prod(shape):
      return np.empty(shape, member.dtype)
    if member.info.compress_type == zipfile.ZIP_STORED:
      start = _data_start(path, member.info) + member.offset
      return np.memmap(path, member.dtype, 'r', start, shape, order)
    try:
      with (
        zipfile.ZipFile(path) as archive,
        archive.open(member.info) as stream,
      ):
        stream.read(member.offset)
        values = np.frombuffer(stream.read(), member.dtype)
      return values.reshape(shape, order=order)
    except _DAMAGE as error:
      raise UserError(
        f'{name} in {path} cannot be unpacked ({error}); download it again'
      ) from error

  def _add(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with archive.open(info) as stream:
      shape, fortran, dtype = _read_header(stream)  # type: ignore[arg-type]
      offset = stream.tell()
    if dtype == np.dtype('V2'):
      # NumPy has no name for bfloat16.
      dtype = BFLOAT16
    name = info.filename.removesuffix(_SUFFIX)
    if dtype.hasobject:
      raise ValueError(f'{name} is a pickle, which is not read')
    if min(shape, default=0) < 0 or (
      info.file_size != offset + math.prod(shape) * dtype.itemsize
    ):
      raise ValueError(f'{name} is {info.file_size} bytes for {shape}')
    stored = info.compress_type == zipfile.ZIP_STORED
    if stored and info.compress_size != info.file_size:
      raise ValueError(f'{name} is {info.compress_size} bytes in the file')
    if name in self.header:
      raise ValueError(f'{name} is in it twice')
    self._members[name] = _Member(info, dtype, fortran, offset)
    self.header[name] = Tensor(shape, str(dtype), str(self.files[0]))


def _read_header(
  stream: zipfile.ZipExtFile,
) -> tuple[tuple[int, ...], bool, np.dtype]:
  version = npy.read_magic(stream)
  if version == (1, 0):
    return npy.read_array_header_1_0(stream)
  return npy.read_array_header_2_0(stream)


def _data_start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
  """Returns the offset of a stored member's bytes."""
  with path.open('rb') as stream:
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER)
  name, extra = struct.unpack('<HH', header[26:30])
  return info.header_offset + _LOCAL_HEADER + name + extra
