"""The items of a checkpoint, and how each is read.

A state that is a named tuple is divided in two: what a reader may use without
going on to train, and what only training needs, which is most of the bytes.
"""

import contextlib
import json
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_utils

from unifluid_jax.utils.paths import AnyPath
from unifluid_jax.weights.identity import Identity

STATE = 'state'
TRAINING = 'training'
IDENTITY = 'identity'

_OF_TRAINING = {'params', 'opt_state', 'balance', 'bad_step'}
"""Fields of a state that only training needs."""

UNREADABLE = (OSError, ValueError, KeyError)
"""What reading arrays raises, besides a bare `Exception`."""

UNREADABLE_UNCHECKED = (*UNREADABLE, TypeError, AttributeError)
"""What reading an item raises whose files may be damaged."""


def divide(state: Any) -> dict[str, Any]:
  """The items that a state is saved as, by name."""
  if not hasattr(state, '_asdict'):
    return {STATE: state}
  fields = state._asdict()
  training = {k: v for k, v in fields.items() if k in _OF_TRAINING}
  rest = {k: v for k, v in fields.items() if k not in _OF_TRAINING}
  return {STATE: rest} | ({TRAINING: training} if training else {})


def read_state(folder: AnyPath, abstract_state: Any, whole: bool) -> Any:
  """Reads a state.

  Args:
    folder: The checkpoint's folder.
    abstract_state: What to read, see `CheckpointReader.restore`.
    whole: Whether the state was saved as a single item, as all once were.

  Raises:
    Exception: `UNREADABLE`, or no subclass of it where an array cannot be read.
  """
  if whole:
    return _read_tree(folder / STATE, abstract_state, partial=True)
  found = {
    name: _read_tree(folder / name, item, partial=False)
    for name, item in divide(abstract_state).items()
  }
  if not hasattr(abstract_state, '_asdict'):
    return found[STATE]
  return type(abstract_state)(**found[STATE], **found.get(TRAINING, {}))


def read_identity(folder: AnyPath) -> Identity:
  """Reads what a state was made by."""
  return json.loads((folder / IDENTITY / 'metadata').read_bytes())


def _read_tree(folder: AnyPath, tree: Any, partial: bool) -> Any:
  """Reads the arrays of an item, or of its part that the tree has."""
  # A checkpointer would wait for the other processes, even if one has failed.
  with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
    return handler.restore(
      epath.Path(folder),
      args=ocp.args.PyTreeRestore(
        tree,
        checkpoint_utils.construct_restore_args(tree),
        partial_restore=partial,
      ),
    )
