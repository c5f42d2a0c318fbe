"""Readers of files: names, shapes and dtypes at once, values when asked."""
