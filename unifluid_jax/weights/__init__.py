"""Checkpoints as a reader knows them: identity, checksums, arrays."""
