"""Weights of other projects in and out.

A file is opened by a reader (`readers`), its tensors are found by a table of
names and axes (`layouts`), and ours are assembled from them piece by piece
(`assembly`), onto devices (`place`) or into a file (`safetensors_file`).
Tables are read in both directions: import and export know the same names.
"""
