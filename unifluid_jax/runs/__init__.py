"""Runs: an experiment carried out in a folder."""
