"""Tasks over a user's own data."""

from unifluid_jax.data.sources.folder import FolderTask
from unifluid_jax.data.sources.tfds import TfdsTask

__all__ = ['FolderTask', 'TfdsTask']
