"""Dtypes of weights, by safetensors' names and numpy's."""

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

SAFETENSORS = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': BFLOAT16,
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
  'I16': np.dtype(np.int16),
  'I8': np.dtype(np.int8),
  'U8': np.dtype(np.uint8),
  'BOOL': np.dtype(np.bool_),
}
"""https://github.com/huggingface/safetensors, 'Format'."""

WEIGHTS = ('float32', 'float16', 'bfloat16')
"""What a weight may be stored as."""
