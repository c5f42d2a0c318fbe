"""Readers of files: headers at once, values on demand."""
